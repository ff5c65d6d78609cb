"""The false-positive profile: what is wrong with a detector's best detections, and what it costs.

Of each class with G_c instances the 10 G_c best detections are looked at. One that has found an instance is a true
positive. Any other is judged by the instance of its video, of whatever class, with which it has the largest tIoU t:

    error              t                     the instance's class
    double detection   alpha <= t            the same (so another detection has found it)
    wrong label        alpha <= t            another
    localisation       0.1 <= t < alpha      the same
    confusion          0.1 <= t < alpha      another
    background         t < 0.1               whatever

The profile counts them by rank: the best G_c detections of each class, the next G_c, ..., ten slices in all. The
impact of an error is average-mAP_N of the same 10 G detections without those that make it, minus that with them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdfa.evaluation.diagnosis.matched import Matched, average_precision
from rdfa.evaluation.matching import overlapping_pairs
from rdfa.ops.segments import tiou

KINDS = ("true positive", "double detection", "wrong label", "localisation", "confusion", "background")
MULTIPLES = 10
LEAST_OVERLAP = 0.1
"""tIoU below which a detection has nothing to do with an instance (DETAD)."""


@dataclass(frozen=True, eq=False)
class FalsePositives:
    """The profile of the 10 G best detections."""

    counts: NDArray[np.int64]
    """(T, 10, 6): detections of each of `KINDS` in each slice of G, at each threshold."""
    average: float
    """Average-mAP_N of the 10 G best detections alone."""
    impact: NDArray[np.float64]
    """(5,): gain in average-mAP_N if no detection made the error, for `KINDS[1:]`."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(10,): detections in each slice: G, or fewer where classes have no more."""
        return np.asarray(self.counts[0].sum(axis=1))

    @property
    def shares(self) -> NDArray[np.float64]:
        """(10, 6): share of each kind in each slice, mean over the thresholds; 0 in an empty slice."""
        return np.asarray(self.counts.mean(axis=0) / np.maximum(self.sizes, 1)[:, None])

    def as_json(self) -> dict[str, Any]:
        """Plain values, by kind and by slice."""
        return {
            "detections": self.sizes.tolist(),
            "share": {kind: self.shares[:, index].tolist() for index, kind in enumerate(KINDS)},
            "count_by_tiou": {kind: self.counts[:, :, index].tolist() for index, kind in enumerate(KINDS)},
            "average_mAP_N": self.average,
            "impact": dict(zip(KINDS[1:], self.impact.tolist(), strict=True)),
        }


def profile(matched: Matched) -> FalsePositives:
    """Classify the best detections, count them, and measure what each kind of error costs."""
    positives, instances = matched.positives, matched.instances_per_class
    slices = matched.ranks // positives[matched.labels]
    rows = np.flatnonzero(slices < MULTIPLES)
    labels, slices = matched.labels[rows], slices[rows]
    kinds = classify(matched, rows)
    cells = MULTIPLES * len(KINDS)
    counts = [np.bincount(slices * len(KINDS) + own, minlength=cells) for own in kinds]

    def average_without(kind: int | None) -> float:
        values = []
        for own in kinds:
            kept = own != kind if kind is not None else np.ones(len(own), dtype=bool)
            values.append(average_precision(labels[kept], own[kept] == 0, positives, instances).mean())
        return float(np.mean(values))

    average = average_without(None)
    return FalsePositives(
        counts=np.array(counts).reshape(-1, MULTIPLES, len(KINDS)),
        average=average,
        impact=np.array([average_without(kind) - average for kind in range(1, len(KINDS))]),
    )


def classify(matched: Matched, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index into `KINDS` of each of the detections `rows` (r,) at each threshold: (T, r)."""
    at_least = min(LEAST_OVERLAP, float(matched.tious.min()))
    owners, truths, overlaps = overlapping_pairs(
        matched.videos[rows], matched.segments[rows], matched.truth_videos, matched.truth_segments, tiou, at_least
    )
    other_class = matched.truth_labels[truths] != matched.labels[rows[owners]]
    order = np.lexsort((truths, other_class, -overlaps, owners))
    judged, first = np.unique(owners[order], return_index=True)
    largest = np.zeros(len(rows))
    largest[judged] = overlaps[order][first]
    wrong_class = np.zeros(len(rows), dtype=np.int64)
    wrong_class[judged] = other_class[order][first]
    kinds = np.empty((len(matched.tious), len(rows)), dtype=np.int64)
    for own, threshold, partners in zip(kinds, matched.tious, matched.partners[:, rows], strict=True):
        own[:] = np.where(largest >= threshold, 1 + wrong_class, np.where(largest >= LEAST_OVERLAP, 3 + wrong_class, 5))
        own[partners >= 0] = 0
    return kinds
