"""Annotations: the ground truth of a data set, in the ActivityNet JSON layout.

    {"database": {VIDEO: {"subset": S, "duration": seconds, "fps": f (optional),
                          "annotations": [{"segment": [start, end] in seconds, "label": CLASS}, ...]}, ...},
     "classes": [CLASS, ...] (optional)}

`read_annotations` checks everything that a later stage relies on and says what is wrong in one line;
`Annotations` holds the result; `write_annotations` is its inverse. Keys not named here are ignored.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rdfa.data.activitynet_json import member, without_duplicate_keys
from rdfa.errors import RdfaError
from rdfa.files import read_json, write_text

LAYOUT = '{"database": {video: {"subset", "duration", "annotations": [{"segment", "label"}]}}}'

CLOCK_TOLERANCE = 0.5
"""Seconds by which a segment may leave [0, duration] and still be taken as rounding, and clipped.

Durations come from the container, segments from a player, and the two clocks differ: of the 1,732
ActivityNet-1.3 segments that end after their video, 1,712 do so by at most 0.5 s. The others (and all
30 in THUMOS-14) are off by up to 537 s: videos cut short or annotations of another video.
"""

Faulty = Literal["refuse", "mend", "keep"]


@dataclass(frozen=True, eq=False)
class Video:
    """One untrimmed video and its action instances."""

    name: str
    subset: str
    duration: float
    """Seconds."""
    fps: float | None
    """Frames per second, where the file says."""
    segments: NDArray[np.float64]
    """(M, 2): start and end of each instance, seconds, read-only; in the file's order."""
    labels: tuple[str, ...]
    """M class names."""


@dataclass(frozen=True, eq=False)
class Annotations:
    """The videos of a file or of one subset, and the classes of the whole file."""

    videos: tuple[Video, ...]
    classes: tuple[str, ...]
    """Sorted by name; the position is the label index, the same for every subset of a file."""
    faults: tuple[str, ...] = field(default=())
    """What `read_annotations` mended or kept although it is wrong, one line per segment."""

    @cached_property
    def label_index(self) -> dict[str, int]:
        """Class name → label index."""
        return {name: index for index, name in enumerate(self.classes)}

    @cached_property
    def by_name(self) -> dict[str, Video]:
        """Video name → video."""
        return {video.name: video for video in self.videos}

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names of the subsets that occur, sorted."""
        return tuple(sorted({video.subset for video in self.videos}))

    def subset(self, name: str) -> "Annotations":
        """The videos whose subset is exactly `name`.

        Raises:
            RdfaError: there is none; the message names the subsets that exist.
        """
        videos = tuple(video for video in self.videos if video.subset == name)
        if not videos:
            known = ", ".join(map(repr, self.subsets)) or "none"
            raise RdfaError(f"the annotations have no video in subset {name!r}; subsets that exist: {known}")
        return Annotations(videos, self.classes, self.faults)

    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """All M instances as columns: index into `videos` (M,), segments (M, 2) in seconds, label indices (M,)."""
        counts = [len(video.labels) for video in self.videos]
        segments = [video.segments for video in self.videos]
        labels = [self.label_index[label] for video in self.videos for label in video.labels]
        return (
            np.repeat(np.arange(len(self.videos), dtype=np.int64), counts),
            np.concatenate(segments) if segments else np.zeros((0, 2)),
            np.array(labels, dtype=np.int64),
        )


def read_annotations(path: Path | str, *, faulty: Faulty = "refuse") -> Annotations:
    """Read and check an annotation file.

    A segment that leaves [0, duration] by at most `CLOCK_TOLERANCE` is clipped. A segment that leaves it
    by more, or whose start is not before its end, is faulty:

    - `refuse`: an error, for data of one's own;
    - `mend`: clipped to the video, and left out if nothing remains: to train on the published files,
      which do contain such segments (THUMOS-14: 30, ActivityNet-1.3: 32);
    - `keep`: nothing at all is clipped or left out: to evaluate against the published files as everybody
      does (the evaluators decide what to do with empty segments and never look at durations).

    Raises:
        RdfaError: the file is absent, not JSON or of another layout; a number is NaN, infinite or not a
            number; a video occurs twice; a label is not in the file's own `classes`; a faulty segment.
    """
    content = read_json(path, object_pairs_hook=without_duplicate_keys(path))
    database = member(path, content, "database", LAYOUT)
    heads, segments, labels = _flatten(path, database)
    counts = [len(each) for each in labels]
    owner, first = np.repeat(np.arange(len(heads)), counts), np.cumsum([0, *counts])
    durations = np.array([head.duration for head in heads])[owner] if len(owner) else np.zeros(0)

    def place(row: int) -> str:
        video = int(owner[row])
        return f"video {heads[video].name!r}, annotation {row - first[video]}"

    segments, kept, faults = _check_segments(path, segments, durations, place, faulty)
    classes = _classes(path, content.get("classes"), labels)
    return Annotations(_videos(heads, segments, labels, kept, counts), classes, faults)


def write_annotations(path: Path | str, annotations: Annotations) -> None:
    """Write `annotations` in the layout above, with its `classes`, one video per line; whole or not at all.

    Raises:
        RdfaError: the disk is full or the folder cannot be written.
    """
    lines = [
        json.dumps(video.name, ensure_ascii=False) + ": " + json.dumps(_as_json(video), ensure_ascii=False)
        for video in annotations.videos
    ]
    classes = json.dumps(annotations.classes, ensure_ascii=False)
    write_text(path, '{"classes": ' + classes + ',\n "database": {\n' + ",\n".join(lines) + "\n}}\n")


def _as_json(video: Video) -> dict[str, Any]:
    instances = zip(video.segments.tolist(), video.labels, strict=True)
    return {
        "subset": video.subset,
        "duration": video.duration,
        **({} if video.fps is None else {"fps": video.fps}),
        "annotations": [{"segment": segment, "label": label} for segment, label in instances],
    }


@dataclass(frozen=True)
class _Head:
    """What a video says of itself."""

    name: str
    subset: str
    duration: float
    fps: float | None


def _flatten(path: Path | str, database: dict[str, Any]) -> tuple[list[_Head], NDArray[np.float64], list[list[str]]]:
    """Videos, all their segments below one another (M, 2), and their labels; types checked, values not yet."""
    heads: list[_Head] = []
    bounds: list[float] = []
    labels: list[list[str]] = []
    for name, video in database.items():
        heads.append(_head(path, name, video))
        own: list[str] = []
        for index, annotation in enumerate(video["annotations"]):
            try:
                (start, end), label = annotation["segment"], annotation["label"]
                if not (_is_number(start) and _is_number(end) and isinstance(label, str)):
                    raise TypeError
            except (TypeError, KeyError, ValueError) as error:
                raise RdfaError(
                    f"{path}: video {name!r}, annotation {index}: {_short(annotation)} is not of the form "
                    '{"segment": [start, end], "label": name}'
                ) from error
            bounds += (start, end)
            own.append(label)
        labels.append(own)
    return heads, np.array(bounds, dtype=np.float64).reshape(-1, 2), labels


def _head(path: Path | str, name: str, video: Any) -> _Head:
    if not isinstance(video, dict):
        raise RdfaError(f"{path}: video {name!r}: {_short(video)} is not an object; the layout is {LAYOUT}")
    subset: Any = video.get("subset")
    duration: Any = video.get("duration")
    fps: Any = video.get("fps")
    annotations: Any = video.get("annotations")
    if not isinstance(subset, str):
        raise RdfaError(f"{path}: video {name!r}: subset is {_short(subset)}, not a name")
    if not _is_positive(duration):
        raise RdfaError(f"{path}: video {name!r}: duration is {_short(duration)}, not a positive number of seconds")
    if fps is not None and not _is_positive(fps):
        raise RdfaError(f"{path}: video {name!r}: fps is {_short(fps)}, not a positive number")
    if not isinstance(annotations, list):
        raise RdfaError(f"{path}: video {name!r}: annotations is {_short(annotations)}, not a list")
    return _Head(name, subset, float(duration), None if fps is None else float(fps))


def _check_segments(
    path: Path | str,
    segments: NDArray[np.float64],
    durations: NDArray[np.float64],
    place: Callable[[int], str],
    faulty: Faulty,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], tuple[str, ...]]:
    """Segments as they are to be used, which of them are kept (M,), and a line for each faulty one."""
    start, end = segments[:, 0], segments[:, 1]
    for row in np.flatnonzero(~np.isfinite(segments).all(axis=1))[:1].tolist():
        raise RdfaError(f"{path}: {place(row)}: segment {segments[row].tolist()} has a bound that is not finite")
    empty = start >= end
    outside = (start < -CLOCK_TOLERANCE) | (end > durations + CLOCK_TOLERANCE) | (start >= durations) | (end <= 0)
    faults = tuple(
        f"{place(row)}: segment {segments[row].tolist()} "
        + ("starts at or after its end" if empty[row] else f"leaves the video, which lasts {durations[row]:g} s")
        for row in np.flatnonzero(empty | outside).tolist()
    )
    everything = np.ones(len(segments), dtype=bool)
    if faulty == "keep":
        return segments, everything, faults
    if faults and faulty == "refuse":
        more = f" (and {len(faults) - 1} more such)" if len(faults) > 1 else ""
        raise RdfaError(f"{path}: {faults[0]}{more}; correct the file, or read it with faulty=mend or keep")
    clipped = np.clip(segments, 0.0, durations[:, None])
    return clipped, everything & (clipped[:, 0] < clipped[:, 1]), faults


def _classes(path: Path | str, listed: Any, labels: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """The file's own class list, if it has one, else the sorted labels."""
    occurring = sorted({label for own in labels for label in own})
    if listed is None:
        return tuple(occurring)
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise RdfaError(f"{path}: classes is {_short(listed)}, not a list of names")
    for before, after in pairwise(listed):
        if before >= after:
            raise RdfaError(f"{path}: classes must be sorted and unique, but {before!r} comes before {after!r}")
    unknown = sorted(set(occurring) - set(listed))
    if unknown:
        raise RdfaError(f"{path}: unknown class {unknown[0]!r}: it labels a segment but is not in the file's classes")
    return tuple(listed)


def _videos(
    heads: list[_Head],
    segments: NDArray[np.float64],
    labels: list[list[str]],
    kept: NDArray[np.bool_],
    counts: list[int],
) -> tuple[Video, ...]:
    segments.flags.writeable = False
    stops = np.cumsum(counts).tolist()
    videos = []
    for head, own, count, stop in zip(heads, labels, counts, stops, strict=True):
        mine, keep = segments[stop - count : stop], kept[stop - count : stop]
        if not keep.all():
            mine, own = mine[keep], [label for label, stays in zip(own, keep, strict=True) if stays]
            mine.flags.writeable = False
        videos.append(Video(head.name, head.subset, head.duration, head.fps, mine, tuple(own)))
    return tuple(videos)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and value > 0


def _short(value: Any) -> str:
    """`value` for a message of one line."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
