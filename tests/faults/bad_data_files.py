"""Whole files of each kind that rdfa reads, and how they are read: what the harm of `bad_data` is done to."""

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from contextlib import chdir, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from rdfa.data.features import FeatureStore
from rdfa.data.windows import TrainingWindows
from rdfa.files import read_json
from rdfa.identity import HISTORY, PARAMS_YAML, RUN_JSON, Paths, keys, paths
from rdfa.inference.trained import load
from rdfa.params import Composed, as_plain, compose
from rdfa.reporting.grid_results import read_metrics
from rdfa.reporting.grids import Entry, Row
from rdfa.reporting.tables import curves_csv
from rdfa.schema import Run
from rdfa.stages.detect import detect_stage
from rdfa.stages.evaluate import evaluate_stage
from rdfa.stages.fetch import fetch_stage
from rdfa.stages.opened import data_digest, ground_truth, open_data
from rdfa.stages.train import train_stage
from rdfa.training.averaging import AveragedWeights
from rdfa.training.checkpoint import State, load_state
from rdfa.training.loop import train
from rdfa.training.schedule import optimizer
from tests.conftest import ROOT, TINY
from tests.faults import bad_data_harm as harm


@dataclass(frozen=True, eq=False)
class Subject:
    """A file that is harmed, and a way to read it through rdfa."""

    path: Path
    parts: harm.Parts
    read: Callable[[], Any]
    """What the file is good for, as plain values."""
    right: Callable[[Any, bytes], bool] | None = None
    """For files that carry no checksum: whether another result is what the harmed bytes say, found without rdfa."""
    named: str | None = None
    """What a message may name in place of the file, where it cannot tell which one it is."""
    mend: Callable[[], Any] | None = None
    """The command that the message names; afterwards the file reads as before."""
    original: bytes = field(init=False)
    value: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "original", self.path.read_bytes())
        object.__setattr__(self, "value", self.read())


def digest(content: Any) -> str:
    """Bytes in short."""
    return hashlib.sha256(content).hexdigest()


@cache
def folder(name: str) -> Path:
    """A folder that lasts as long as this process."""
    made = Path(tempfile.mkdtemp(prefix=f"faults-{name}-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def tiny(dataset: str) -> Composed:
    """A run that trains in a second."""
    return compose(
        dataset=dataset, model="rdfa", variant="paper", scale="sample", overrides=TINY, folder=ROOT / "params"
    )


@cache
def project() -> tuple[Path, Composed, Paths]:
    """A checkout with a fetched, trained, detected and evaluated run."""
    root, composed = folder("project"), tiny("thumos14")
    torch.set_num_threads(1)
    fetch_stage(composed.run, root, None)
    train_stage(composed, root, tracked=False)
    detect_stage(composed.run, root)
    evaluate_stage(composed.run, root, tracked=False)
    return root, composed, paths(composed.run, root)


def store() -> list[Subject]:
    """The feature store, opened as training opens it."""
    _, composed, where = project()
    read = partial(_all_of, composed.run, where)
    return [Subject(where.data / "features.h5", harm.hdf5, read, mend=partial(_fetched_anew, composed.run))]


def _all_of(run: Run, where: Paths) -> Any:
    data = open_data(run, where)
    try:
        names = data.store.videos
        read = {name: (vars(data.store.attributes(name)), digest(data.store.read(name))) for name in names}
        videos = [(*_plain(video), video.duration, video.fps) for video in data.annotations.videos]
        return read, videos, data.annotations.classes, data.scores, data_digest(data.manifest)
    finally:
        data.store.close()


def _plain(video: Any) -> tuple[Any, ...]:
    return video.name, video.subset, video.segments.tolist(), video.labels


def _fetched_anew(run: Run) -> None:
    """In another folder, so that the next harm finds this one as it was."""
    _, _, where = project()
    with tempfile.TemporaryDirectory() as other:
        copy = paths(run, Path(other))
        shutil.copytree(where.data, copy.data)
        fetch_stage(run, Path(other), None)
        assert _all_of(run, copy) == _all_of_whole(run)


@cache
def _all_of_whole(run: Run) -> Any:
    with tempfile.TemporaryDirectory() as other:
        fetch_stage(run, Path(other), None)
        return _all_of(run, paths(run, Path(other)))


def data_set() -> list[Subject]:
    """Annotations, scores and manifests of fetched data."""
    subjects = []
    _, composed, _ = project()
    scored, root = tiny("activitynet").run, folder("scored")
    fetch_stage(scored, root, None)
    for run, where in ((composed.run, project()[2]), (scored, paths(scored, root))):
        read = partial(_data, run, where)
        files = [where.data / "annotations.json", where.manifest, where.data / "external_scores.json"]
        subjects += [Subject(file, harm.text, read) for file in files if file.exists()]
    return subjects


def _data(run: Run, where: Paths) -> Any:
    """All but the features, and what is judged by."""
    data = open_data(run, where)
    data.store.close()
    truth = [_plain(video) for video in ground_truth(run, where).videos]
    return [_plain(video) for video in data.annotations.videos], truth, data.scores, data_digest(data.manifest)


def results() -> list[Subject]:
    """What a run's folder holds, read as evaluation, tables and detection read it."""
    root, composed, where = project()
    evaluated = partial(_evaluated, composed.run, root)
    entries = [Entry(row=Row(model="rdfa", variant="paper", dataset="thumos14"), runs=(composed,))]
    loaded = partial(_loaded, where.folder)
    record = _entries(partial(read_json, where.folder / RUN_JSON))
    return [
        Subject(where.detections, harm.text, evaluated),
        Subject(where.metrics, harm.text, _entries(partial(read_metrics, composed.run, root))),
        Subject(where.folder / RUN_JSON, harm.text, lambda: (record(), loaded())),
        Subject(where.folder / HISTORY, harm.text, partial(curves_csv, entries, root)),
        Subject(where.folder / PARAMS_YAML, harm.text, loaded),
    ]


def _entries(read: Callable[[], dict[str, Any]]) -> Callable[[], Any]:
    """Values by the names that are there now; a seal whose name is harmed would be one more, that nobody reads."""
    names = list(read())

    def named() -> Any:
        content = read()
        return [content.get(name) for name in names]

    return named


def _evaluated(run: Run, root: Path) -> Any:
    """The metrics' bytes, written elsewhere than those that other subjects are."""
    kept = paths(run, root).metrics.read_bytes()
    try:
        return evaluate_stage(run, root, tracked=False).read_bytes()
    finally:
        paths(run, root).metrics.write_bytes(kept)


def _loaded(folder: Path) -> Any:
    detector = load(folder, device="cpu")
    weights = {name: digest(value.numpy().tobytes()) for name, value in detector.model.state_dict().items()}
    return as_plain(detector.run), detector.classes, weights


def checkpoint() -> list[Subject]:
    """A trained run's weights."""
    _, _, where = project()
    return [Subject(where.folder / "checkpoint.safetensors", harm.safetensors, partial(_loaded, where.folder))]


def state() -> list[Subject]:
    """The state that an interrupted training goes on from."""
    _, composed, where = project()
    path = folder("state") / "state.safetensors"
    with suppress(KeyboardInterrupt):
        data = open_data(composed.run, where)
        videos = data.annotations.subset(composed.run.train_subset).videos
        windows = TrainingWindows(composed.run, videos, data.annotations.classes, data.store)
        train(composed.run, windows, path, on_epoch=_interrupt)
    return [Subject(path, harm.safetensors, partial(_resumed, composed.run, where.folder, path))]


def _interrupt(row: dict[str, float]) -> None:
    raise KeyboardInterrupt


def _resumed(run: Run, folder: Path, path: Path) -> Any:
    model = load(folder, device="cpu").model.train()
    average = AveragedWeights(model, run.training.average)
    resumed = State(model, optimizer(model, run.training), average, {}, {})
    assert load_state(path, resumed)
    moments = resumed.optimizer.state_dict()["state"]
    tensors = {f"m{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"a{name}": value for name, value in average.weights.items()}
    tensors |= {f"o{index}{name}": value for index, row in moments.items() for name, value in row.items()}
    tensors |= {f"b{name}": value for name, value in resumed.best.items()}
    plain = {name: digest(value.detach().contiguous().numpy().tobytes()) for name, value in tensors.items()}
    return plain, resumed.counters, average.updates


def parameters() -> list[Subject]:
    """Parameter files: a changed value is another run, with other keys."""
    copy = folder("parameters") / "params"
    shutil.copytree(ROOT / "params", copy)
    files = ("defaults.yaml", "datasets/thumos14.yaml", "models/rdfa.yaml", "scales/sample.yaml")
    return [
        Subject(copy / file, harm.text, partial(_keyed, copy), right=_has_other_key, named="params") for file in files
    ]


def _keyed(params: Path) -> Any:
    """What of a run decides results, and its keys."""
    with chdir(params.parent):
        run = compose(dataset="thumos14", model="rdfa", variant="paper", scale="sample", folder=Path("params")).run
    values = as_plain(run)
    values["source"].pop("hub")  # planted data comes from nowhere
    values.pop("runtime")
    return values, keys(run).evaluate


def _has_other_key(value: Any, harmed: bytes) -> bool:
    _, key = value
    return bool(key != _keyed(ROOT / "params")[1])


def read_store(path: Path) -> Any:
    """Everything in a feature store."""
    opened = FeatureStore(path)
    try:
        return {name: (vars(opened.attributes(name)), digest(opened.read(name))) for name in opened.videos}
    finally:
        opened.close()
