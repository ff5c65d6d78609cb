"""The text files of the THUMOS'14 evaluation kit, read into the same `Annotations` and `Detections` as everything else.

Ground truth: a folder with one `CLASS_SPLIT.txt` per class, lines `video start end` in seconds, and
`Ambiguous_SPLIT.txt`. Detections: one file, lines `video start end class-id score`, the ids being those of UCF-101.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rdfa.data.annotations import Annotations, Video
from rdfa.data.detections import Detections, collect_detections
from rdfa.errors import RdfaError

CLASS_IDS = {
    7: "BaseballPitch",
    9: "BasketballDunk",
    12: "Billiards",
    21: "CleanAndJerk",
    22: "CliffDiving",
    23: "CricketBowling",
    24: "CricketShot",
    26: "Diving",
    31: "FrisbeeCatch",
    33: "GolfSwing",
    36: "HammerThrow",
    40: "HighJump",
    45: "JavelinThrow",
    51: "LongJump",
    68: "PoleVault",
    79: "Shotput",
    85: "SoccerPenalty",
    92: "TennisSwing",
    93: "ThrowDiscus",
    97: "VolleyballSpiking",
}
"""The 20 detection classes by their UCF-101 number (the kit's `detclasslist.txt`)."""


def read_kit_annotations(folder: Path | str, split: str = "test") -> Annotations:
    """Read the kit's ground truth for `split` (`test` or `val`), the label `Ambiguous` included.

    The kit knows no durations: a video is taken to last until its last annotation ends. Only videos with an
    annotation occur.

    Raises:
        RdfaError: no such files, or a line that is not `video start end`.
    """
    folder = Path(folder)
    files = sorted(folder.glob(f"*_{split}.txt"))
    if not files:
        raise RdfaError(f"{folder}: has no file CLASS_{split}.txt of the THUMOS'14 kit")
    instances: dict[str, list[tuple[float, float, str]]] = {}
    for file in files:
        label = file.name.removesuffix(f"_{split}.txt")
        for number, (video, *numbers) in _lines(file, columns=3):
            start, end = sorted(_numbers(file, number, numbers))
            instances.setdefault(video, []).append((start, end, label))
    videos = tuple(
        Video(
            name=name,
            subset=split,
            duration=max(end for _, end, _ in own),
            fps=None,
            segments=np.array([(start, end) for start, end, _ in own]),
            labels=tuple(label for _, _, label in own),
        )
        for name, own in sorted(instances.items())
    )
    return Annotations(videos, tuple(sorted(file.name.removesuffix(f"_{split}.txt") for file in files)))


def read_kit_detections(file: Path | str) -> Detections:
    """Read a detection file of the kit; a video file's ending (`.mp4`, `.mpeg`) is taken off its name.

    Reversed bounds are put in order, as the kit does: published files have them.

    Raises:
        RdfaError: no such file, or a line that is not `video start end class-id score` with finite numbers and the
            id of one of the 20 classes.
    """
    file = Path(file)
    classes = list(CLASS_IDS.values())
    index_of_id = {class_id: index for index, class_id in enumerate(CLASS_IDS)}
    rows: dict[str, list[tuple[float, ...]]] = {}
    for number, (video, start, end, class_id, score) in _lines(file, columns=5):
        bounds = sorted(_numbers(file, number, [start, end]))
        if not class_id.isdecimal() or int(class_id) not in index_of_id:
            raise RdfaError(f"{file}: line {number}: {class_id!r} is not the id of a THUMOS'14 detection class")
        name = video.removesuffix(".mp4").removesuffix(".mpeg")
        rows.setdefault(name, []).append((*bounds, *_numbers(file, number, [score]), index_of_id[int(class_id)]))
    columns = ((video, np.array(own)) for video, own in rows.items())
    return collect_detections(((video, own[:, :2], own[:, 2], own[:, 3]) for video, own in columns), classes)


def _lines(file: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of each line that is not blank."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RdfaError(f"{file}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RdfaError(f"{file}: cannot be read ({error})") from error
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if fields and len(fields) != columns:
            raise RdfaError(f"{file}: line {number} has {len(fields)} fields, not {columns}: {line[:80]!r}")
        if fields:
            yield number, fields


def _numbers(file: Path, line: int, fields: list[str]) -> tuple[float, ...]:
    """The fields as finite numbers."""
    try:
        numbers = tuple(float(field) for field in fields)
    except ValueError as error:
        raise RdfaError(f"{file}: line {line}: {error}") from error
    if not np.isfinite(numbers).all():
        raise RdfaError(f"{file}: line {line}: {', '.join(fields)}: not finite")
    return numbers
