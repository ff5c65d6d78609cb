"""Files that others wrote, whole, and how rdfa reads them; formats without a checksum have a second reader here."""

import csv
import io
import json
import math
import tempfile
from collections.abc import Callable
from contextlib import chdir
from functools import cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from rdfa.data.annotations import read_annotations
from rdfa.data.annotations_csv import read_csv
from rdfa.data.detections import read_detections
from rdfa.data.feature_files import open_features
from rdfa.data.sources.own import write_own
from rdfa.params import compose
from rdfa.schema import Run
from rdfa.stages.new_dataset import Request, new_dataset_stage
from tests.data import own_files
from tests.faults import bad_data_harm as harm
from tests.faults.bad_data_files import Subject, folder, project, read_store

CHANNELS = 8
"""Of `own_files`."""


def results() -> list[Subject]:
    """Annotations and detections in the layouts of the ActivityNet toolkit, and a table of annotations."""
    _, _, where = project()
    place = folder("foreign")
    annotations, detections = place / "truth.json", place / "found.json"
    annotations.write_text(json.dumps(json.loads((where.data / "annotations.json").read_text()), indent=1))
    content = json.loads(where.detections.read_text())["results"]
    few = {video: [rows[index] for index in range(min(8, len(rows)))] for video, rows in content.items()}
    detections.write_text(json.dumps({"version": "1.3", "results": few, "external_data": {}}))
    table = own_files.write_labels(place / "labels.csv", own_files.recordings())
    return [
        Subject(annotations, harm.text, partial(_annotations, annotations), right=_says_annotations),
        Subject(detections, harm.text, partial(_detections, detections), right=_says_detections),
        Subject(table, harm.text, partial(_table, table), right=_says_table),
    ]


def _annotations(path: Path) -> Any:
    found = read_annotations(path, faulty="keep")
    videos = [(v.name, v.subset, v.duration, v.fps, v.segments.tolist(), list(v.labels)) for v in found.videos]
    return videos, list(found.classes)


def _says_annotations(value: Any, harmed: bytes) -> bool:
    content = json.loads(harmed)
    videos = []
    for name, video in content["database"].items():
        rows = video["annotations"]
        segments = [[float(bound) for bound in row["segment"]] for row in rows]
        fps = None if video.get("fps") is None else float(video["fps"])
        labels = [row["label"] for row in rows]
        videos.append((name, video["subset"], float(video["duration"]), fps, segments, labels))
    classes = content.get("classes")
    if classes is None:
        classes = sorted({label for *_, labels in videos for label in labels})
    return bool((videos, classes) == value)


def _detections(path: Path) -> Any:
    found = read_detections(path)
    labels = [found.classes[index] for index in found.label_index]
    owners = [found.videos[index] for index in found.video_index]
    return found.videos, owners, found.segments.tolist(), found.scores.tolist(), labels


def _says_detections(value: Any, harmed: bytes) -> bool:
    results = json.loads(harmed)["results"]
    rows = [(video, row) for video, own in results.items() for row in own]
    segments = [[float(bound) for bound in row["segment"]] for _, row in rows]
    scores = [float(row["score"]) for _, row in rows]
    return bool(value == (tuple(results), [v for v, _ in rows], segments, scores, [row["label"] for _, row in rows]))


def _table(path: Path) -> Any:
    return [(d.name, d.subset, d.duration, d.fps, d.instances) for d in read_csv(path)]


def _says_table(value: Any, harmed: bytes) -> bool:
    videos: dict[str, list[Any]] = {}
    for row in csv.DictReader(io.StringIO(harmed.decode("utf-8-sig"), newline="")):
        named = {name: text.strip() for name, text in row.items()}
        length, fps = (float(named[name]) if named.get(name) else None for name in ("duration", "fps"))
        video = videos.setdefault(named["video"], [named["subset"], length, fps, []])
        video[1] = video[1] or length
        if named["label"]:
            video[3].append((float(named["start"]), float(named["end"]), named["label"]))
    return bool(value == [(name, *rest) for name, rest in videos.items()])


def features() -> list[Subject]:
    """Feature files as `rdfa detect --features` reads them."""
    place = folder("features")
    made = own_files.recordings()[0].features
    subjects = []
    for name, write in _WRITERS.items():
        path = place / name
        write(path, made)
        parts = harm.hdf5 if path.suffix == ".h5" else harm.numpy_array if path.suffix == ".npy" else harm.packed
        right = {"array.npy": _says_array, "old.pt": _says_tensor, "tensor.pt": None}.get(name, _is_features)
        subjects.append(Subject(path, parts, partial(_features, path), right=right))
    return subjects


def _save_chunked(path: Path, made: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("train/v0", data=made, chunks=(16, CHANNELS), compression="gzip")
        file["train/v0"].attrs.update(fps=25.0, stride=5)


def _save_plain(path: Path, made: Any) -> None:
    with h5py.File(path, "w") as file:
        file["v0"] = made
        file.attrs.update(fps=25.0, stride=5)


_WRITERS: dict[str, Callable[[Path, Any], None]] = {
    "array.npy": np.save,
    "tensor.pt": lambda path, made: torch.save(torch.from_numpy(made), path),
    "old.pt": lambda path, made: torch.save(torch.from_numpy(made), path, _use_new_zipfile_serialization=False),
    "plain.h5": _save_plain,
    "chunked.h5": _save_chunked,
}


def _features(path: Path) -> Any:
    return [
        (video.shape, vars(video.timing), video.read(0, video.shape[0]).tobytes())
        for video in open_features(path, CHANNELS)
    ]


def _says_array(value: Any, harmed: bytes) -> bool:
    """NumPy's own reader; of the values, those that are there."""
    array = np.load(io.BytesIO(harmed), allow_pickle=False)
    ((shape, _, content),) = value
    return bool(shape == array.shape and content == array.astype(np.float32).tobytes())


def _says_tensor(value: Any, harmed: bytes) -> bool:
    """PyTorch's own reader, of a format that it has given up: no checksums."""
    return _says_array(value, _as_array(torch.load(io.BytesIO(harmed), weights_only=True)))


def _as_array(tensor: torch.Tensor) -> bytes:
    np.save(written := io.BytesIO(), tensor.numpy())
    return written.getvalue()


def _is_features(value: Any, harmed: bytes) -> bool:
    """HDF5 of others has no checksums of its structure, and only HDF5 itself can read it: the right form must do."""
    arrays = [np.frombuffer(content, np.float32).reshape(shape) for shape, _, content in value]
    timings = [number for _, timing, _ in value for number in timing.values() if number is not None]
    return all(np.isfinite(array).all() for array in arrays) and all(map(math.isfinite, timings))


def own() -> list[Subject]:
    """A user's own data, described once, then harmed, then fetched."""
    subjects = []
    for form, labels in (("npy", "labels.csv"), ("pt", "labels.json"), ("h5", "labels.csv")):
        place = own_files.workspace(folder(f"own-{form}"))
        made = own_files.recordings()
        with chdir(place):
            own_files.write_labels(Path(labels), made)
            written = own_files.write_features(Path("features"), made, form)
            grid = {"stride": own_files.STRIDE, "window": own_files.WINDOW, "fps": own_files.FPS}
            suffix = "_feature.pt" if form == "pt" else None
            features = Path(written.name)
            new_dataset_stage(Request(name="mine", annotations=Path(labels), features=features, suffix=suffix, **grid))
            one = features if form == "h5" else sorted(features.iterdir())[0]
            parts = {"h5": harm.hdf5, "npy": harm.numpy_array, "pt": harm.packed}[form]
        run = partial(_brought_in, place)
        named = f"{labels} or {features} changed"  # one digest is of them all
        subjects += [Subject(place / path, of, run, named=named) for path, of in ((one, parts), (labels, harm.text))]
    return subjects


def _brought_in(place: Path) -> Any:
    with chdir(place), tempfile.TemporaryDirectory() as made:
        run, target = _described(place), Path(made)
        write_own(run, target)
        return read_store(target / "features.h5"), (target / "annotations.json").read_bytes()


@cache
def _described(place: Path) -> Run:
    """The parameters that `rdfa new-dataset` wrote before the harm."""
    return compose(dataset="mine", model="rdfa", variant="paper", scale="full").run
