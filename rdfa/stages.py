"""The stages of the workflow, one function each: open the files, call the library, write the outputs, log them.

fetch -> train -> detect -> evaluate -> table. Each finds its inputs and outputs by `rdfa.identity.paths`, does
nothing that its outputs do not need, and leaves no output that is not whole.
"""

import csv
import hashlib
import io
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from rdfa.data.annotations import Annotations, read_annotations
from rdfa.data.detections import read_detections, write_detections
from rdfa.data.features import FeatureStore
from rdfa.data.fetch import ANNOTATIONS, FEATURES, SCORES, fetch
from rdfa.data.windows import TrainingWindows
from rdfa.errors import RdfaError
from rdfa.evaluation.average_precision import mean_average_precision
from rdfa.evaluation.detect import Scores, detect, read_scores
from rdfa.files import read_json, write_json, write_text
from rdfa.identity import Paths, keys, paths, run_name
from rdfa.models.detector import Detector, build, count_parameters
from rdfa.models.predictor import Predictor
from rdfa.params import PARAMS, Composed, flatten, read_yaml, resolved_yaml
from rdfa.provenance import provenance
from rdfa.reporting.tables import averages, curves_csv, read_table, rows_of, table_key, table_names, to_csv, to_markdown
from rdfa.schema import Run
from rdfa.tracking import Store, tolerated
from rdfa.training.checkpoint import apply_weights, load_weights, save_weights
from rdfa.training.loop import History, Trained, choose_device, train

logger = logging.getLogger(__name__)

CHECKPOINT, RUN_JSON, HISTORY = "checkpoint.safetensors", "run.json", "history.csv"
PARAMS_YAML, LOG = "params.yaml", "log.txt"


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set's folder, opened."""

    annotations: Annotations
    store: FeatureStore
    scores: Scores | None
    manifest: dict[str, Any]


def fetch_stage(run: Run, root: Path, archive: Path | None) -> Path:
    """Fill the data set's folder from its source; returns the manifest's path."""
    return fetch(run, paths(run, root).data, keys(run).fetch, archive)


def train_stage(composed: Composed, root: Path, tracked: bool = True) -> Path:
    """Train a run, going on where an interrupted call stopped; returns the run's folder.

    Raises:
        RdfaError: the data is not fetched, another process trains this run, the MLflow store cannot be reached, or
            training failed for a reason that the message names.
    """
    run = composed.run
    where = paths(run, root)
    if (where.folder / RUN_JSON).exists():
        return where.folder
    data = open_data(run, where)
    store = Store(root) if tracked else None
    with _only_trainer(where.state), _log_file(where.state.with_suffix(".log")):
        run_id = _start_tracking(store, run, where, data) if store else None
        status = "FAILED"
        try:
            trained = train(
                run,
                TrainingWindows(run, _videos(data, run.train_subset), data.annotations.classes, data.store),
                where.state,
                on_epoch=partial(_track_epoch, store, run_id),
                test_map=_test_map(run, data) if run.training.selection == "best_test" else None,
            )
            _write_run(composed, where, data, trained)
            status = "FINISHED"
            if store and run_id:
                with tolerated():
                    _track_model(store, run_id, run, where)
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            if store and run_id:
                with tolerated():
                    store.end(run_id, status)
        where.state.unlink(missing_ok=True)
        where.state.with_suffix(".log").unlink(missing_ok=True)
    return where.folder


def detect_stage(run: Run, root: Path) -> Path:
    """Write the detections of a trained run on its test split; returns their path."""
    where = paths(run, root)
    data = open_data(run, where)
    device = choose_device(run)
    model = load_detector(run, where.folder).to(device)
    torch.set_num_threads(run.runtime.threads)
    videos = _videos(data, run.test_subset)
    found = detect(run, model, videos, data.annotations.classes, data.store, data.scores, device)
    write_detections(where.detections, found)
    return where.detections


def evaluate_stage(run: Run, root: Path, tracked: bool = True) -> Path:
    """Evaluate a run's detections; returns the path of the metrics."""
    where = paths(run, root)
    read_manifest(run, where)
    truth = read_annotations(where.data / ANNOTATIONS, faulty="keep").subset(run.test_subset)
    detections = read_detections(where.detections)
    result = mean_average_precision(truth, detections, run.evaluation.tious, run.evaluation.protocol)
    about = {"run": where.folder.name, "data_set": run.dataset, "scale": run.scale, "planted_data": is_planted(run)}
    write_json(where.metrics, about | result.as_json())
    if tracked:
        with tolerated():
            store = Store(root)
            run_id = store.find(keys(run).train) or import_run(store, run, where)
            named = {f"mAP_{tiou:g}": value for tiou, value in zip(result.tious, result.mean, strict=True)}
            store.log_results(run_id, named | {"mAP_average": result.average}, [where.metrics, where.detections])
    return where.metrics


def open_data(run: Run, where: Paths) -> Data:
    """Open a fetched data set and check it against the parameters.

    Raises:
        RdfaError: it is not fetched, or disagrees with the run's parameters.
    """
    manifest = read_manifest(run, where)
    # Published annotations have a few segments outside their videos; those of our own sources must have none.
    annotations = read_annotations(where.data / ANNOTATIONS, faulty="mend" if run.source.kind == "hub" else "refuse")
    if len(annotations.classes) != run.num_classes:
        raise RdfaError(
            f"{where.data / ANNOTATIONS}: has {len(annotations.classes)} classes, but num_classes is {run.num_classes}"
        )
    store = FeatureStore(where.data / FEATURES)
    store.check(run.features, [*_videos_of(annotations, run.train_subset), *_videos_of(annotations, run.test_subset)])
    scores = read_scores(where.data / SCORES) if run.detection.external_classes else None
    return Data(annotations=annotations, store=store, scores=scores, manifest=manifest)


def read_manifest(run: Run, where: Paths) -> dict[str, Any]:
    """What `rdfa fetch` wrote about the data that this run needs."""
    if not where.manifest.exists():
        raise RdfaError(f"{where.data}: the data of {run_name(run)} is not there; run: rdfa fetch {run_name(run)}")
    return dict(read_json(where.manifest))


def load_detector(run: Run, folder: Path) -> Detector:
    """A trained run's detector, with the weights that `detection.weights` names."""
    path = folder / CHECKPOINT
    weights = load_weights(path)
    prefix = f"{run.detection.weights}."
    model = build(run)
    apply_weights(model, {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}, path)
    return model.eval()


def is_planted(run: Run) -> bool:
    """Whether a run's data was made by the sample source: its numbers say nothing about the papers."""
    return run.source.kind == "sample"


def import_run(store: Store, run: Run, where: Paths) -> str:
    """Rebuild the MLflow run of a result that was made elsewhere; returns its id."""
    record = read_json(where.folder / RUN_JSON)
    run_id = store.start(run_name(run), keys(run).train, flatten(run), _tags(run, record["data_digest"]))
    with (where.folder / HISTORY).open(newline="") as file:
        for row in csv.DictReader(file):
            store.log_epoch(run_id, {name: float(value) for name, value in row.items() if value})
    store.log_results(run_id, {}, [where.folder / PARAMS_YAML, where.folder / RUN_JSON])
    store.end(run_id, "FINISHED")
    return run_id


def _track_epoch(store: Store | None, run_id: str | None, row: dict[str, float]) -> None:
    if store and run_id:
        with tolerated():
            store.log_epoch(run_id, row)


def _videos(data: Data, subset: str) -> Any:
    return _videos_of(data.annotations, subset)


def _videos_of(annotations: Annotations, subset: str) -> Any:
    return annotations.subset(subset).videos


def _test_map(run: Run, data: Data) -> Any:
    """Average mAP on the test split, as a function of a detector (for `selection: best_test`)."""
    truth = data.annotations.subset(run.test_subset)

    def test_map(model: Detector) -> float:
        device = next(model.parameters()).device
        found = detect(run, model, truth.videos, data.annotations.classes, data.store, data.scores, device)
        return mean_average_precision(truth, found, run.evaluation.tious, run.evaluation.protocol).average

    return test_map


def _write_run(composed: Composed, where: Paths, data: Data, trained: Trained) -> None:
    """Write a trained run's files; run.json last, as the seal."""
    run = composed.run
    weights = {f"plain.{name}": value for name, value in trained.plain.items()}
    weights |= {f"averaged.{name}": value for name, value in trained.averaged.items()}
    save_weights(where.folder / CHECKPOINT, weights, {"run": where.folder.name})
    heading = f"# {run_name(run)}, resolved; after each value the file that set it\n"
    write_text(where.folder / PARAMS_YAML, heading + resolved_yaml(composed))
    write_text(where.folder / HISTORY, _history_csv(trained.history))
    log = where.state.with_suffix(".log")
    write_text(where.folder / LOG, log.read_text(encoding="utf-8") if log.exists() else "")
    record = {
        "run": run_name(run),
        "key": keys(run).train,
        "data_digest": data_digest(data.manifest),
        "planted_data": is_planted(run),
        "parameters": count_parameters(build(run)),
        "epoch": trained.epoch,
        "selection": run.training.selection,
        "seconds": round(trained.seconds, 1),
        "device": str(choose_device(run)),
        "threads": run.runtime.threads,
        "made_by": provenance(),
    }
    write_json(where.folder / RUN_JSON, record)


def data_digest(manifest: dict[str, Any]) -> str:
    """One digest for all files of a data set, from the checksums in its manifest."""
    listed = "".join(f"{name}:{file['sha256']}\n" for name, file in sorted(manifest["files"].items()))
    return hashlib.sha256(listed.encode()).hexdigest()


def _history_csv(history: History) -> str:
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in history for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.10g}" for name, value in row.items()} for row in history)
    return text.getvalue()


def _start_tracking(store: Store, run: Run, where: Paths, data: Data) -> str:
    digest = data_digest(data.manifest)
    run_id = store.start(run_name(run), keys(run).train, flatten(run), _tags(run, digest))
    store.log_dataset(run_id, where.data, where.data.name, digest, "training")
    return run_id


def _tags(run: Run, digest: str) -> dict[str, str]:
    made_by = provenance()
    tags = {
        "mlflow.source.git.commit": made_by["git_commit"] or "",
        "git.dirty": str(made_by["git_dirty"]).lower(),
        "data.digest": digest,
        "data_set": run.dataset,
        "model": run.model_name,
        "variant": run.variant,
        "seed": str(run.seed),
        "scale": run.scale,
        "planted_data": str(is_planted(run)).lower(),
    }
    return tags | ({"dvc.exp_name": made_by["dvc_experiment"]} if made_by["dvc_experiment"] else {})


def _track_model(store: Store, run_id: str, run: Run, where: Paths) -> None:
    files = [where.folder / name for name in (PARAMS_YAML, HISTORY, LOG, RUN_JSON)]
    store.log_results(run_id, {"parameters": count_parameters(build(run))}, files)
    predictor = Predictor(load_detector(run, where.folder), run.model)
    store.log_model(run_id, predictor, run.features.dimension, 2 + run.head_classes)


@contextmanager
def _only_trainer(state: Path) -> Iterator[None]:
    """Hold the run's lock; the system releases it when the process ends, however it ends."""
    state.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(state.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RdfaError(f"another process is training {state.stem} (it holds {lock.lock_file})") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Append what rdfa logs to a file that survives an interruption."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    root = logging.getLogger("rdfa")
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def unused_runs(root: Path) -> list[Path]:
    """Folders of runs that no table uses, at any scale, with the parameters and the code of now."""
    scales = [path.stem for path in sorted((PARAMS / "scales").glob("*.yaml"))]
    used = {
        paths(composed.run, root).folder
        for name in table_names()
        for scale in scales
        for entry in read_table(name, scale)[1]
        for composed in entry.runs
    }
    folders = sorted(path for path in (root / "results" / "runs").glob("*") if path.is_dir())
    return [folder for folder in folders if folder not in used]


def remove_unused(folders: list[Path]) -> None:
    """Delete folders of runs."""
    for folder in folders:
        shutil.rmtree(folder)


def table_stage(name: str, root: Path, scale: str | None = None, tracked: bool = True) -> list[Path]:
    """Write a table as CSV and Markdown, its averages as JSON and its curves as CSV; returns the paths."""
    table, entries = read_table(name, scale)
    rows = rows_of(entries, root, read_yaml(PARAMS / "published.yaml"))
    results = root / "results"
    files = [results / f"{name}{ending}" for ending in (".csv", ".md", ".json", "-curves.csv")]
    texts = [to_csv(rows), to_markdown(table.title, rows), None, curves_csv(entries, root)]
    for path, text in zip(files, texts, strict=True):
        write_json(path, averages(rows, table_key(entries))) if text is None else write_text(path, text)
    files[0].with_suffix(".stale.csv").unlink(missing_ok=True)
    if tracked:
        with tolerated():
            children = [keys(composed.run).train for entry in entries for composed in entry.runs]
            Store(root).log_table(name, table_key(entries), children, files)
    return files
