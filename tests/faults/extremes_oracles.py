"""Plain versions of what rdfa computes cleverly: short, slow, and written from the definitions alone."""

import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdfa.data.annotations import Annotations, Video
from rdfa.data.detections import Detections, collect_detections

Instance = tuple[str, float, float, str]
"""Video, start, end, class."""
Detection = tuple[str, float, float, str, float]
"""The same, and its score."""
DUPLICATE = 1e-3
"""Seconds within which two bounds are the same (ActionFormer, OpenTAD)."""


def annotations(instances: Sequence[Instance], also: Sequence[str] = (), duration: float = 1e4) -> Annotations:
    """A split of these instances; `also` names videos without one."""
    rows: dict[str, list[Instance]] = {name: [] for name in also}
    for instance in instances:
        rows.setdefault(instance[0], []).append(instance)
    videos = tuple(
        Video(
            name,
            "test",
            duration,
            None,
            np.array([row[1:3] for row in own], dtype=float).reshape(-1, 2),
            tuple(row[3] for row in own),
        )
        for name, own in rows.items()
    )
    return Annotations(videos, tuple(sorted({instance[3] for instance in instances})))


def detections(found: Sequence[Detection], classes: Sequence[str]) -> Detections:
    """Detections by video, in their order."""
    index = {name: number for number, name in enumerate(classes)}
    rows: dict[str, list[Detection]] = {}
    for row in found:
        rows.setdefault(row[0], []).append(row)
    return collect_detections(
        (
            (name, [row[1:3] for row in own], [row[4] for row in own], [index[row[3]] for row in own])
            for name, own in rows.items()
        ),
        classes,
    )


def distinct(segments: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Segments without those that repeat an earlier one, in their order."""
    kept: list[tuple[float, float]] = []
    by_start: list[tuple[float, float]] = []
    for start, end in segments:
        first = bisect.bisect_left(by_start, (start - 2 * DUPLICATE, 0.0))
        last = bisect.bisect_left(by_start, (start + 2 * DUPLICATE, 0.0))
        near = by_start[first:last]
        if not any(abs(start - other) <= DUPLICATE and abs(end - stop) <= DUPLICATE for other, stop in near):
            kept.append((start, end))
            bisect.insort(by_start, (start, end))
    return kept


def tiou(first: Sequence[float], second: Sequence[float]) -> float:
    overlap = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    union = (first[1] - first[0]) + (second[1] - second[0]) - overlap
    return overlap / max(union, 1e-8)


def mean_ap(instances: Sequence[Instance], found: Sequence[Detection], threshold: float) -> float:
    """mAP of the `activitynet` protocol: equal scores by video name, then in the file's order."""
    counted: list[Instance] = []
    for each in instances:
        repeated = any(
            (each[0], each[3]) == (other[0], other[3])
            and abs(each[1] - other[1]) <= DUPLICATE
            and abs(each[2] - other[2]) <= DUPLICATE
            for other in counted
        )
        if each[1] < each[2] and not repeated:
            counted.append(each)
    precisions = []
    for name in sorted({each[3] for each in counted}):
        own = [each for each in counted if each[3] == name]
        ranked = sorted((row for row in found if row[3] == name), key=lambda row: (-row[4], row[0]))
        precisions.append(_average_precision(own, ranked, threshold))
    return float(np.mean(precisions))


def _average_precision(own: Sequence[Instance], ranked: Sequence[Detection], threshold: float) -> float:
    free, hits = set(range(len(own))), []
    for row in ranked:
        overlaps = [(tiou(row[1:3], own[i][1:3]), -i) for i in free if own[i][0] == row[0]]
        best = max(overlaps, default=(0.0, 0))
        hits.append(best[0] >= threshold)
        if hits[-1]:
            free.discard(-best[1])
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1) if hits else np.zeros(0)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[np.array(hits, dtype=bool)].sum() / len(own)) if hits else 0.0


def suppressed(
    segments: NDArray[Any], scores: NDArray[Any], labels: NDArray[Any], method: str, threshold: float, sigma: float
) -> list[tuple[int, float]]:
    """NMS within classes, without a least score: rows in the order in which they are taken, with their scores then.

    Of equal scores the lower label comes first, then the earlier row.
    """
    left, taken = {row: float(scores[row]) for row in range(len(scores))}, []
    while left:
        row = min(left, key=lambda each: (-left[each], labels[each], each))
        taken.append((row, left.pop(row)))
        for other in [each for each in left if labels[each] == labels[row]]:
            start, end = (float(bound) for bound in segments[row])
            overlap = max(0.0, min(end, segments[other][1]) - max(start, segments[other][0]))
            # In the extension's order of arithmetic: where scores are equal but for rounding, rounding decides.
            lengths = (end - start + 1e-6) + (float(segments[other][1] - segments[other][0]) + 1e-6)
            ratio = overlap / (lengths - overlap)
            if method == "gaussian":
                left[other] *= float(np.exp(-(ratio * ratio) / sigma))
            elif ratio >= threshold and overlap > 0:
                left[other] *= 0.0 if method == "hard" else 1 - ratio
                if method == "hard":
                    del left[other]
    return taken


def assigned(point: Sequence[float], segments: NDArray[Any], labels: NDArray[Any], radius: float) -> set[int]:
    """Classes of a pyramid point (position, range low, range high, stride) by ActionFormer's rule."""
    position, low, high, stride = point
    start, end = segments[:, 0], segments[:, 1]
    middle = (start + end) / 2
    inside = (position > np.maximum(middle - stride * radius, start)) & (
        position < np.minimum(middle + stride * radius, end)
    )
    furthest = np.maximum(position - start, end - position)
    rows = np.flatnonzero(inside & (furthest >= low) & (furthest <= high))
    if len(rows) == 0:
        return set()
    lengths = (end - start)[rows]
    return {int(label) for label in labels[rows[lengths <= lengths.min() + 1e-3]]}


def focal(logits: NDArray[Any], targets: NDArray[Any], alpha: float, gamma: float) -> float:
    """Sum of the sigmoid focal loss, in double precision."""
    logits = logits.astype(np.float64)
    probability = 1 / (1 + np.exp(-logits))
    of_truth = np.where(targets > 0, probability, 1 - probability)
    weight = np.where(targets > 0, alpha, 1 - alpha)
    return float((-weight * (1 - of_truth) ** gamma * np.log(of_truth)).sum())
