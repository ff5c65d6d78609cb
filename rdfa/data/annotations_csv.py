"""Annotations as a table: a CSV file with a row per instance.

    video,subset,start,end,label[,duration][,fps]

`start` and `end` in seconds; a video without any instance has one row with these and `label` empty. `duration`
(seconds) and `fps` say the same in each row of a video, or nothing. Other columns are ignored. UTF-8, commas.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rdfa.data.activitynet_json import refuse_invisible
from rdfa.errors import RdfaError

COLUMNS = ("video", "subset", "start", "end", "label")
OPTIONAL = ("duration", "fps")


@dataclass
class Draft:
    """A video as a table describes it."""

    name: str
    subset: str
    duration: float | None
    """Seconds, where the table says."""
    fps: float | None
    instances: list[tuple[float, float, str]] = field(default_factory=list)
    """Start and end in seconds, and label, in the file's order."""


def read_csv(path: Path) -> list[Draft]:
    """Read a table of annotations; the videos in the order in which they first occur.

    Segments may lie anywhere: whoever knows the durations checks them.

    Raises:
        RdfaError: no such file, another layout, or a row that is not as above, with its line.
    """
    videos: dict[str, Draft] = {}
    for line, row in _rows(path):
        place = f"{path}: line {line}"
        for name in ("video", "subset"):
            if not row[name]:
                raise RdfaError(f"{place}: the column {name!r} is empty")
        refuse_invisible(place, [row["video"], row["subset"], row["label"]])
        duration, fps = (_positive(place, name, row.get(name, "")) for name in OPTIONAL)
        video = videos.setdefault(row["video"], Draft(row["video"], row["subset"], duration, fps))
        for name, before, now in (("duration", video.duration, duration), ("fps", video.fps, fps)):
            if now is not None and before is not None and now != before:
                raise RdfaError(f"{place}: video {video.name!r} has {name} {now:g}, an earlier line says {before:g}")
        if row["subset"] != video.subset:
            raise RdfaError(
                f"{place}: video {video.name!r} is in subset {row['subset']!r}, an earlier line says {video.subset!r}"
            )
        video.duration, video.fps = video.duration or duration, video.fps or fps
        filled = [bool(row[name]) for name in ("start", "end", "label")]
        if any(filled):
            if not all(filled):
                raise RdfaError(f"{place}: start, end and label must all be given, or none for a video without any")
            video.instances.append((_number(place, "start", row), _number(place, "end", row), row["label"]))
    return list(videos.values())


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields of each row that is not blank."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or []
            missing = [name for name in COLUMNS if name not in names]
            if missing:
                raise RdfaError(
                    f"{path}: no column {', '.join(missing)}; the first line must name the columns "
                    f"{','.join(COLUMNS)} (and may name {', '.join(OPTIONAL)}), with commas"
                )
            for row in reader:
                if None in row or None in row.values():
                    raise RdfaError(f"{path}: line {reader.line_num}: not {len(names)} fields, as the first line has")
                yield reader.line_num, {name: value.strip() for name, value in row.items()}
    except FileNotFoundError as error:
        raise RdfaError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RdfaError(f"{path}: not a readable CSV file ({error})") from error


def _number(place: str, name: str, row: dict[str, str]) -> float:
    try:
        value = float(row[name])
    except ValueError as error:
        raise RdfaError(f"{place}: {name} is {row[name]!r}, not a number of seconds") from error
    if not math.isfinite(value):
        raise RdfaError(f"{place}: {name} is {row[name]!r}, not finite")
    return value


def _positive(place: str, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise RdfaError(f"{place}: {name} is {text!r}, not a positive number")
    return value
