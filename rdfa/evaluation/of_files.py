"""Evaluation of any project's files: ground truth and detections in the field's formats, as a table, JSON and CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rdfa.data.annotations import Annotations, read_annotations
from rdfa.data.detections import Detections, read_detections
from rdfa.data.thumos_kit import read_kit_annotations, read_kit_detections
from rdfa.errors import RdfaError
from rdfa.evaluation.average_precision import MeanAveragePrecision, Protocol, mean_average_precision
from rdfa.files import not_a_formula

_NAMED = 3


def evaluate_files(
    ground_truth: Path,
    detections: Path,
    *,
    subset: str | None,
    protocol: Protocol,
    tious: Sequence[float],
    count_repeated: bool = False,
) -> MeanAveragePrecision:
    """Evaluate a file of detections against a file of annotations.

    Args:
        ground_truth: ActivityNet JSON, or a folder of the THUMOS'14 kit's text files.
        detections: ActivityNet result JSON, or a `.txt` file of the kit.
        subset: split of the ground truth; None if it has only one.
        count_repeated: keep ground truth that repeats in a video, as the ActivityNet toolkit does.

    Raises:
        RdfaError: a file that cannot be read or is not of its format, a subset that does not exist.
    """
    return mean_average_precision(
        read_ground_truth(ground_truth, subset),
        read_any_detections(detections),
        tious,
        protocol,
        count_repeated=count_repeated,
    )


def read_ground_truth(path: Path, subset: str | None) -> Annotations:
    """One split of annotations: from JSON or, for a folder, from the THUMOS'14 kit's text files (`test` by default).

    Raises:
        RdfaError: unreadable; no such subset; several subsets and none chosen.
    """
    if path.is_dir():
        return read_kit_annotations(path, subset or "test")
    truth = read_annotations(path, faulty="keep")
    if subset is None and len(truth.subsets) != 1:
        raise RdfaError(f"{path}: has the subsets {', '.join(truth.subsets)}: choose one with --subset")
    return truth.subset(subset or truth.subsets[0])


def read_any_detections(path: Path) -> Detections:
    """Detections from ActivityNet result JSON, or from a `.txt` file of the THUMOS'14 kit."""
    return (read_kit_detections if path.suffix == ".txt" else read_detections)(path)


def parse_tious(text: str) -> list[float]:
    """`0.3:0.7:0.1` (start, end, step, both ends included) or `0.5,0.75,0.95`.

    Raises:
        RdfaError: neither.
    """
    try:
        if ":" in text:
            start, end, step = (float(part) for part in text.split(":"))
            count = round((end - start) / step) + 1
            return [round(start + step * index, 10) for index in range(count)]
        return [float(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise RdfaError(
            f"--tiou {text!r}: must be START:END:STEP, as 0.3:0.7:0.1, or a list, as 0.5,0.75,0.95"
        ) from error


def as_table(result: MeanAveragePrecision) -> str:
    """mAP at each tIoU and what was ignored, for a person to read."""
    lines = [
        f"protocol {result.protocol}: {result.detections} detections against {result.ground_truth} segments "
        f"of {len(result.classes)} classes",
        *(f"mAP@{tiou:<5g} {100 * value:7.3f}" for tiou, value in zip(result.tious, result.mean, strict=True)),
        f"average   {100 * result.average:7.3f}",
    ]
    return "\n".join(lines + _remarks(result)) + "\n"


def as_csv(result: MeanAveragePrecision) -> str:
    """A row per class with its AP at each tIoU, then a row with the means; fractions, not per cent."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *(f"{tiou:g}" for tiou in result.tious), "average"])
    for index, name in enumerate(result.classes):
        values = result.per_class[:, index]
        writer.writerow([not_a_formula(name), *(f"{value:.10g}" for value in values), f"{np.mean(values):.10g}"])
    writer.writerow(["mean", *(f"{value:.10g}" for value in result.mean), f"{result.average:.10g}"])
    return text.getvalue()


def _remarks(result: MeanAveragePrecision) -> list[str]:
    remarks, lines = result.remarks, []
    for what, counts in (
        ("in videos that the ground truth lacks (counted as false positives)", remarks.outside_videos),
        ("with labels that no annotation has (left out)", remarks.unknown_labels),
        ("of classes without ground truth in this subset (left out)", remarks.absent_classes),
    ):
        total = sum(counts.values())
        if total:
            named = [name for name, count in counts.items() if count]
            more = ", ..." if len(named) > _NAMED else ""
            lines.append(f"note: {total} detections {what}: {', '.join(named[:_NAMED])}{more}")
    if remarks.dropped_ground_truth:
        lines.append(f"note: {remarks.dropped_ground_truth} repeated or empty ground-truth segments left out")
    return lines
