"""Readers of what is being written: they see the old whole or the new whole, never half."""

import csv
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.campaign import SURVIVED, WRONG, Outcome, Scene
from tests.faults.forked import Forked, rdfa
from tests.faults.small import RUN, checkout, command

_SECONDS = (0.4, 5.0)
"""How long one file is rewritten and read, in the short form and in the full one."""


def readers(scene: Scene) -> Iterator[Outcome]:
    """Each kind of file, rewritten between two contents by one process, read by another with rdfa's own reader."""
    root = checkout(scene.folder / "checkout", None)
    (run,) = (root / "results" / "runs").iterdir()
    data = root / "data" / "thumos14-sample"
    kinds: dict[Path, tuple[Callable[[Path, int], None], Callable[[Path], object]]] = {
        data / "annotations.json": (_write_annotations, _read_annotations),
        data / "features.h5": (_write_features, _read_features),
        next(run.glob("detections-*")): (_write_detections, _read_detections),
        next(run.glob("metrics-*")): (_write_metrics, _read_metrics),
        run / "checkpoint.safetensors": (_write_weights, _read_weights),
        root / "results" / "table1.csv": (_write_table, _read_table),
    }
    for path, (write, read) in kinds.items():
        yield _contest(root, path, write, read, scene.random.random() * 0.2 + _SECONDS[scene.full])


def _contest(
    root: Path, path: Path, write: Callable[[Path, int], None], read: Callable[[Path], object], seconds: float
) -> Outcome:
    """Read a file that alternates between contents 0 and 1 as often as time allows."""

    def writing() -> None:
        for turn in range(1_000_000):
            write(path, turn % 2)

    def reading() -> None:
        end, seen = time.monotonic() + seconds, {0: 0, 1: 0}
        while time.monotonic() < end or (min(seen.values()) == 0 and time.monotonic() < end + 30):
            number = read(path)
            assert number in (0, 1), f"read {number}"
            seen[number] += 1  # type: ignore[index]
        assert min(seen.values()) > 0, f"only one content was seen: {seen}"
        print(sum(seen.values()))

    write(path, 0)
    writer = Forked(writing, root)
    try:
        ended = Forked(reading, root).wait(seconds + 60)
        if "Traceback" in writer.said():
            return Outcome(WRONG, f"the writer of {path.name}: {writer.said()[-1500:]}")
    finally:
        writer.end()
    if ended.status != 0:
        return Outcome(WRONG, f"reading {path.name} while it is written: {ended.output[-1500:]}")
    return Outcome(SURVIVED)


def _write_annotations(path: Path, number: int) -> None:
    from rdfa.files import write_json

    videos = {
        f"v{index}": {"subset": "s", "duration": 9.0, "annotations": [{"label": "a", "segment": [number, 5.0]}]}
        for index in range(200 + 100 * number)
    }
    write_json(path, {"classes": ["a"], "database": videos})


def _read_annotations(path: Path) -> object:
    from rdfa.data.annotations import read_annotations

    videos = read_annotations(path).videos
    starts = {float(video.segments[0, 0]) for video in videos}
    return int(starts.pop()) if starts in ({0.0}, {1.0}) and len(videos) == 200 + 100 * (starts == {1.0}) else starts


def _write_features(path: Path, number: int) -> None:
    import numpy as np

    from rdfa.data.features import FeatureWriter

    about = {"fps": 25.0, "stride": 4, "window": 4, "duration": 8.0, "encoder": "e", "source": "s"}
    with FeatureWriter(path) as store:
        for index in range(5):
            store.add(f"v{index}", "s", np.full((50, 8), number, np.float32), **about)  # type: ignore[arg-type]


def _read_features(path: Path) -> object:
    from rdfa.data.features import FeatureStore

    store = FeatureStore(path)
    values = {float(value) for index in range(5) for value in store.read(f"v{index}").ravel()[::37]}
    store.close()
    return int(values.pop()) if len(values) == 1 else values


def _write_detections(path: Path, number: int) -> None:
    from rdfa.data.detections import collect_detections, write_detections

    rows = [(f"v{index}", [[number, 5.0]] * 100, [0.5] * 100, [0] * 100) for index in range(4)]
    write_detections(path, collect_detections(rows, ("a",)))


def _read_detections(path: Path) -> object:
    from rdfa.data.detections import read_detections

    found = read_detections(path)
    starts = set(found.segments[:, 0].tolist())
    return int(starts.pop()) if starts in ({0.0}, {1.0}) and len(found) == 400 else starts


def _write_metrics(path: Path, number: int) -> None:
    from rdfa.files import write_json

    write_json(path, {"mAP": [number] * 500, "average_mAP": number})


def _read_metrics(path: Path) -> object:
    from rdfa.files import read_json

    content = read_json(path)
    return content["average_mAP"] if content["mAP"] == [content["average_mAP"]] * 500 else content


def _write_weights(path: Path, number: int) -> None:
    import torch

    from rdfa.training.checkpoint import save_weights

    save_weights(path, {f"w{index}": torch.full((2000,), float(number)) for index in range(10)}, {})


def _read_weights(path: Path) -> object:
    from rdfa.training.checkpoint import load_weights

    values = {float(value) for tensor in load_weights(path).values() for value in tensor[::97]}
    return int(values.pop()) if len(values) == 1 else values


def _write_table(path: Path, number: int) -> None:
    from rdfa.files import write_text

    write_text(path, "n\n" + f"{number}\n" * 3000)


def _read_table(path: Path) -> object:
    with path.open(newline="") as file:
        values = [row["n"] for row in csv.DictReader(file)]
    return int(values[0]) if len(values) == 3000 and len(set(values)) == 1 else values[-3:]


def replaced_under_readers(scene: Scene) -> Iterator[Outcome]:
    """A data set that is fetched with other parameters again and again while a stage opens it: its own or a message."""
    root = checkout(scene.folder / "checkout", "train")
    other = rdfa(*command("fetch"), "--set=source.sample.train_videos=9")
    own = rdfa(*command("fetch"))

    def writing() -> None:
        for turn in range(1_000_000):
            (other if turn % 2 == 0 else own)()

    def reading() -> None:
        from rdfa.errors import RdfaError
        from rdfa.identity import parse_run_name, paths
        from rdfa.params import compose
        from rdfa.stages.opened import open_data
        from tests.conftest import TINY

        run = compose(**parse_run_name(RUN), overrides=TINY).run
        where, opened, refused = paths(run), 0, set()
        end = time.monotonic() + _SECONDS[scene.full] * 3
        while time.monotonic() < end:
            try:
                data = open_data(run, where)
            except RdfaError as error:
                refused.add(str(error)[:150])
                continue
            names = [video.name for video in data.annotations.subset(run.train_subset).videos]
            assert len(names) == 8, f"{len(names)} videos, those of other parameters"
            for name in names:
                data.store.read(name)
            data.store.close()
            opened += 1
        print(json.dumps([opened, sorted(refused)]))

    writer = Forked(writing, root)
    try:
        ended = Forked(reading, root).wait(120)
    finally:
        writer.end()
    yield Outcome(SURVIVED) if ended.status == 0 else Outcome(WRONG, f"data replaced: {ended.output[-1500:]}")
    shutil.rmtree(root)
