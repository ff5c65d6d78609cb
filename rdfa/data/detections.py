"""Detections: scored, labelled segments, in the ActivityNet result layout, held as columns.

    {"results": {VIDEO: [{"label": CLASS, "score": s, "segment": [start, end] in seconds}, ...], ...}}

In the order of reading: `Detections`, how to make one (`read_detections`, `collect_detections`), how to
write one (`write_detections`).
"""

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdfa.data.activitynet_json import member, refuse_invisible, without_duplicate_keys
from rdfa.errors import RdfaError
from rdfa.files import SEAL, read_json, written_whole

LAYOUT = '{"results": {video: [{"label", "score", "segment": [start, end]}]}}'

UNNAMED = "action"
"""The label of what nobody names: the detector finds actions only, and there is no external classifier."""


@dataclass(frozen=True, eq=False)
class Detections:
    """n detections as columns; rows of one video are together, in the file's order."""

    videos: tuple[str, ...]
    """Names, also of videos without a detection."""
    video_index: NDArray[np.int64]
    """(n,): index into `videos`, non-decreasing."""
    segments: NDArray[np.float64]
    """(n, 2): start and end, seconds."""
    scores: NDArray[np.float64]
    """(n,): confidence, any finite scale."""
    label_index: NDArray[np.int64]
    """(n,): index into `classes`."""
    classes: tuple[str, ...]
    """Label names, each once, in no particular order."""

    def __len__(self) -> int:
        return len(self.scores)


def read_detections(path: Path | str) -> Detections:
    """Read and check a result file.

    472,800 detections (ActivityNet's validation videos with 100 each) take about 0.7 s and 110 MB.

    Raises:
        RdfaError: the file is absent, empty, not JSON or of another layout; a video occurs twice; a score
            or a bound is NaN or infinite; a segment ends before it starts. One line, naming video, index
            and value.
    """
    parser = _RowParser()
    content = read_json(path, object_hook=parser)
    results = member(path, content, "results", LAYOUT)
    counts = []
    for video, rows in results.items():
        # list.count compares identities first: a quick way to see that all elements became rows.
        if not isinstance(rows, list) or rows.count(_ROW) != len(rows):
            raise RdfaError(f"{path}: {_what_is_wrong(video, rows)}")
        counts.append(len(rows))
    if sum(counts) != len(parser.codes) or len(parser.numbers) != 3 * len(parser.codes):
        read_json(path, object_pairs_hook=without_duplicate_keys(path))
        raise RdfaError(f"{path}: has detections outside 'results'; the layout is {LAYOUT}")
    for label in parser.labels:
        if not isinstance(label, str):
            raise RdfaError(f"{path}: the label {label!r} is not a name")
    refuse_invisible(path, [*parser.labels, *results])
    columns = np.frombuffer(parser.numbers, dtype=np.float64).reshape(-1, 3)
    detections = Detections(
        videos=tuple(results),
        video_index=np.repeat(np.arange(len(counts), dtype=np.int64), counts),
        segments=columns[:, :2].copy(),
        scores=columns[:, 2].copy(),
        label_index=np.frombuffer(parser.codes, dtype=np.int64),
        classes=tuple(parser.labels),
    )
    _refuse_bad_values(path, detections)
    return detections


def collect_detections(
    rows_of_videos: Iterable[tuple[str, ArrayLike, ArrayLike, ArrayLike]], classes: Iterable[str]
) -> Detections:
    """Put together what a detector returns video by video.

    Args:
        rows_of_videos: (video, segments (n, 2) in seconds, scores (n,), label indices (n,)) of each video, once.
        classes: label index → name.
    """
    names, segments, scores, labels = [], [np.zeros((0, 2))], [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
    for name, its_segments, its_scores, its_labels in rows_of_videos:
        names.append(name)
        segments.append(np.asarray(its_segments, dtype=np.float64).reshape(-1, 2))
        scores.append(np.asarray(its_scores, dtype=np.float64))
        labels.append(np.asarray(its_labels, dtype=np.int64))
    counts = [len(each) for each in scores[1:]]
    return Detections(
        videos=tuple(names),
        video_index=np.repeat(np.arange(len(names), dtype=np.int64), counts),
        segments=np.concatenate(segments),
        scores=np.concatenate(scores),
        label_index=np.concatenate(labels),
        classes=tuple(classes),
    )


def write_detections(path: Path | str, detections: Detections) -> None:
    """Write a result file, one video per line; whole or not at all. Numbers are written so that they read back equal.

    Raises:
        RdfaError: a score or bound is NaN or infinite, a segment ends before it starts, the disk is full.
    """
    _refuse_bad_values(path, detections)
    digest = hashlib.sha256()
    with written_whole(path) as temporary, temporary.open("wb") as file:
        for text in _texts(detections):
            part = text.encode()
            digest.update(part)
            file.write(part)
        file.write(f'{SEAL}{digest.hexdigest()}"}}}}\n'.encode())


def _texts(detections: Detections) -> Iterator[str]:
    """The file up to its seal (rdfa.files), in pieces."""
    yield '{"version": "1.3", "results": {\n'
    for index, line in enumerate(_lines(detections)):
        yield ",\n" + line if index else line
    yield '\n}, "external_data": {'


def _lines(detections: Detections) -> Iterator[str]:
    """`"video": [...]` for each video. Formatted by hand: twice as fast as building the dicts for `json.dumps`."""
    names = [json.dumps(name, ensure_ascii=False) for name in detections.classes]
    bounds = np.searchsorted(detections.video_index, np.arange(len(detections.videos) + 1))
    for index, video in enumerate(detections.videos):
        rows = slice(bounds[index], bounds[index + 1])
        columns = (detections.label_index[rows], detections.scores[rows], detections.segments[rows])
        items = ", ".join(
            f'{{"label": {names[label]}, "score": {score!r}, "segment": [{start!r}, {end!r}]}}'
            for label, score, (start, end) in zip(*(column.tolist() for column in columns), strict=True)
        )
        yield f"{json.dumps(video, ensure_ascii=False)}: [{items}]"


_ROW = object()
"""Stands in the parsed lists where a detection was."""


class _LabelCodes(dict[Any, int]):
    """Numbers labels in the order of appearance."""

    def __missing__(self, label: Any) -> int:
        self[label] = code = len(self)
        return code


class _RowParser:
    """An `object_hook` that moves each detection into columns and leaves `_ROW` in its place.

    An object that is not a detection is returned as it is: the two outer levels rightly, anything else to be
    reported by the caller (the columns are then wrong, but nobody will use them).
    """

    def __init__(self) -> None:
        self.numbers = array("d")
        """start, end, score of each detection, in the file's order."""
        self.codes = array("q")
        self.labels = _LabelCodes()

    def __call__(self, value: dict[str, Any]) -> Any:
        try:
            start, end = value["segment"]
            append = self.numbers.append
            append(start)
            append(end)
            append(value["score"])
            self.codes.append(self.labels[value["label"]])
        except (KeyError, TypeError, ValueError, OverflowError):
            return value
        return _ROW


def _what_is_wrong(video: str, rows: Any) -> str:
    if not isinstance(rows, list):
        return f"video {video!r}: its results are not a list; the layout is {LAYOUT}"
    index, row = next((index, row) for index, row in enumerate(rows) if row is not _ROW)
    place = f"video {video!r}, detection {index}"
    if not isinstance(row, dict):
        return f"{place}: {row!r:.80} is not an object; the layout is {LAYOUT}"
    for key in ("label", "score", "segment"):
        if key not in row:
            return f"{place}: has no {key!r}"
    return f"{place}: {row!r:.120} is not of the form {{label: name, score: number, segment: [start, end]}}"


def _refuse_bad_values(path: Path | str, detections: Detections) -> None:
    for bad, words in (
        (~np.isfinite(detections.scores), "score {score} is not finite"),
        (~np.isfinite(detections.segments).all(axis=1), "segment {segment} has a bound that is not finite"),
        (detections.segments[:, 0] > detections.segments[:, 1], "segment {segment} ends before it starts"),
    ):
        for row in np.flatnonzero(bad)[:1].tolist():
            video = int(detections.video_index[row])
            index = row - int(np.searchsorted(detections.video_index, video))
            what = words.format(score=detections.scores[row], segment=detections.segments[row].tolist())
            more = f" (and {int(bad.sum()) - 1} more such)" if bad.sum() > 1 else ""
            raise RdfaError(f"{path}: video {detections.videos[video]!r}, detection {index}: {what}{more}")
