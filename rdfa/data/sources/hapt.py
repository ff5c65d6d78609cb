"""The HAPT source: real recordings of a waist-worn phone, activities and the transitions between postures.

UCI data set 341, version 2.1: 61 recordings of 30 people at 50 Hz, 3 axes of acceleration (g) and 3 of angular
velocity (rad/s), 1,214 labelled segments of 12 classes. Reyes-Ortiz, Oneto, Samà, Parra, Anguita: Transition-Aware
Human Activity Recognition Using Smartphones, Neurocomputing 2015. To be cited where used; no commercial use.

In order of reading: `write_hapt`; how the recordings and their labels are read; how they become features.
"""

import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rdfa.data.annotations import Annotations, Video, write_annotations
from rdfa.data.features import FeatureWriter
from rdfa.data.sources.archive import content_digest, download, local_archive, read_members, verify
from rdfa.errors import RdfaError
from rdfa.schema import Run

RATE = 50.0
"""Samples per second; a sample is what a frame is elsewhere."""
TEST_SUBJECTS = frozenset({2, 4, 9, 10, 12, 13, 18, 20, 24})
"""The people whose recordings are the published test part."""
CLASSES = (
    *("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING"),
    *("STAND_TO_SIT", "SIT_TO_STAND", "SIT_TO_LIE", "LIE_TO_SIT", "STAND_TO_LIE", "LIE_TO_STAND"),
)
"""activity_labels.txt: the class of activity number i is at i - 1."""
CENTER = np.array([0.81, 0.0, 0.09, 0.01, -0.01, -0.01])
SCALE = np.array([0.40, 0.37, 0.38, 0.58, 0.47, 0.35])
"""Mean and standard deviation of each channel over the training subjects' recordings, to two digits: constants, so
that the features do not depend on who computes a mean how."""

_FILES = re.compile(r"(?:^|/)RawData/(?:labels|(?:acc|gyro)_exp\d\d_user\d\d)\.txt$")
_SIGNAL = re.compile(r"acc_(exp\d\d_user\d\d)\.txt$")


@dataclass(frozen=True)
class Recording:
    """One recording: its signals (N, 6), acceleration in g then angular velocity in rad/s."""

    name: str
    signals: NDArray[np.float64]

    @property
    def subject(self) -> int:
        return int(self.name[-2:])


def write_hapt(run: Run, folder: Path, archive: Path | None) -> None:
    """Write `annotations.json` and `features.h5` from the archive into `folder`.

    A feature vector is a window's samples, scaled by `CENTER` and `SCALE`: 6 values of the first sample, 6 of the
    next, and so on; float16. Window and stride are `run.features`' in samples.

    Args:
        archive: local copy; else that of the environment variable `run.source.archive.variable`; else it is
            downloaded from `run.source.archive.url`.

    Raises:
        RdfaError: no archive, a truncated, damaged or other one, or parameters that do not fit the data.
    """
    if run.source.archive is None:
        raise RdfaError(f"{run.dataset}: source.kind 'hapt' needs source.archive")
    _check_parameters(run)
    folder.mkdir(parents=True, exist_ok=True)
    path = local_archive(run.source.archive, archive)
    downloaded = folder / "archive.download"
    try:
        if path is None:
            download(run.source.archive, downloaded)
            path = downloaded
        members = read_members(path, _FILES)
        verify(path, members, run.source.archive)
    finally:
        downloaded.unlink(missing_ok=True)
    print(f"HAPT: {run.source.archive.terms}", file=sys.stderr)
    recordings = [_recording(path, members, name) for name in sorted(members) if _SIGNAL.match(name)]
    write_annotations(folder / "annotations.json", _annotations(run, path, recordings, members))
    _write_features(run, recordings, content_digest(members), folder / "features.h5")


def _check_parameters(run: Run) -> None:
    features = run.features
    pairs: list[tuple[str, float, float]] = [
        ("features.dimension", features.dimension, features.window * len(CENTER)),
        ("features.fps", features.fps or RATE, RATE),
        ("num_classes", run.num_classes, len(CLASSES)),
    ]
    for name, given, needed in pairs:
        if given != needed:
            raise RdfaError(f"{run.dataset}: {name} is {given:g}, but these recordings need {needed:g}")
    if run.train_subset == run.test_subset:
        raise RdfaError(f"{run.dataset}: train_subset and test_subset are both {run.train_subset!r}")


def _recording(path: Path, members: dict[str, bytes], acceleration: str) -> Recording:
    rotation = acceleration.replace("acc_", "gyro_")
    if rotation not in members:
        raise RdfaError(f"{path}: {acceleration} has no {rotation}")
    parts = [_numbers(path, members, name, np.float64, columns=3) for name in (acceleration, rotation)]
    if len(parts[0]) != len(parts[1]):
        raise RdfaError(f"{path}: {acceleration} has {len(parts[0])} samples, {rotation} has {len(parts[1])}")
    return Recording(acceleration[len("acc_") : -len(".txt")], np.concatenate(parts, axis=1))


def _numbers(path: Path, members: dict[str, bytes], name: str, kind: type, columns: int) -> NDArray[np.float64]:
    if name not in members:
        raise RdfaError(f"{path}: RawData/{name} is missing")
    try:
        table: NDArray[np.float64] = np.loadtxt(io.BytesIO(members[name]), dtype=kind, ndmin=2, encoding="ascii")
    except ValueError as error:
        raise RdfaError(f"{path}: RawData/{name}: not a table of numbers ({error})") from error
    if table.shape[1] != columns or not np.isfinite(table).all():
        raise RdfaError(f"{path}: RawData/{name}: not {columns} finite numbers in each line")
    return table


def _annotations(run: Run, path: Path, recordings: list[Recording], members: dict[str, bytes]) -> Annotations:
    """Ground truth: labels.txt counts samples from 1 and includes the last, so sample i spans [(i - 1), i] / 50 s."""
    labels = _numbers(path, members, "labels.txt", np.int64, columns=5)
    known = {recording.name for recording in recordings}
    of_recording: dict[str, list[tuple[int, int, int]]] = {name: [] for name in known}
    for experiment, subject, activity, first, last in labels.tolist():
        name = f"exp{experiment:02d}_user{subject:02d}"
        if name not in known or not 1 <= activity <= len(CLASSES):
            raise RdfaError(f"{path}: RawData/labels.txt: no recording {name} or no activity {activity}")
        of_recording[name].append((first, last, activity))
    videos = []
    for recording in recordings:
        rows = sorted(of_recording[recording.name])
        subset = run.test_subset if recording.subject in TEST_SUBJECTS else run.train_subset
        segments = np.array([((first - 1) / RATE, last / RATE) for first, last, _ in rows]).reshape(-1, 2)
        names = tuple(CLASSES[activity - 1] for *_, activity in rows)
        videos.append(Video(recording.name, subset, len(recording.signals) / RATE, RATE, segments, names))
    return Annotations(tuple(videos), tuple(sorted(CLASSES)))


def _write_features(run: Run, recordings: list[Recording], source: str, path: Path) -> None:
    with FeatureWriter(path) as writer:
        for recording in recordings:
            writer.add(
                recording.name,
                run.test_subset if recording.subject in TEST_SUBJECTS else run.train_subset,
                windows(recording.signals, run.features.window, run.features.stride),
                fps=RATE,
                stride=run.features.stride,
                window=run.features.window,
                duration=len(recording.signals) / RATE,
                encoder=run.features.encoder,
                source=source,
            )


def windows(signals: NDArray[np.float64], window: int, stride: int) -> NDArray[np.float16]:
    """Windows of scaled signals as feature vectors: (N, 6) → (T, window * 6), T windows that fit, `stride` apart."""
    scaled = ((signals - CENTER) / SCALE).astype(np.float16)
    views = np.lib.stride_tricks.sliding_window_view(scaled, window, axis=0)[::stride]  # (T, 6, window)
    return np.ascontiguousarray(views.swapaxes(1, 2)).reshape(len(views), window * signals.shape[1])
