"""How far a mean average precision depends on which videos happen to be in the test split.

The bootstrap over videos: as many videos as there are, drawn with replacement, again and again, each time evaluated
anew. A video that is drawn twice counts twice, its detections and its ground truth alike. What a detection is matched
with depends on its own video only, so the matching is done once, and a draw is a weighted precision-recall curve.

The draws follow from the seed and the number of videos alone: two runs on one test split see the same draws, and the
difference of their replicates is a paired one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rdfa.data.annotations import Annotations
from rdfa.data.detections import Detections
from rdfa.evaluation.average_precision import Hits, Problem, Protocol, matched

WEIGHTS_AT_ONCE = 1 << 22
"""Bounds the memory: a weight for each draw and each detection of a class."""

Floats = NDArray[np.float64]


def draw_videos(videos: int, replicates: int, seed: int) -> NDArray[np.int64]:
    """How often each of `videos` is in each draw: (replicates, videos), rows sum to `videos`."""
    return np.random.default_rng(seed).multinomial(videos, np.full(videos, 1 / videos), size=replicates)


def replicate_average(
    ground_truth: Annotations,
    detections: Detections,
    tious: Sequence[float],
    protocol: Protocol,
    draws: NDArray[np.int64],
) -> Floats:
    """Average mAP over `tious` of each draw, (R,), in [0, 1].

    A class that has no ground truth in a draw is no part of that draw's mean; a draw without any is NaN. In the
    protocol `thumos14`, whose precision is not interpolated, copies of a video count as one step of the curve.

    Args:
        ground_truth, detections, tious, protocol: as for `mean_average_precision`.
        draws: (R, V) copies of each of the ground truth's V videos, as `draw_videos` gives.

    Raises:
        RdfaError: there is no ground truth.
    """
    problem = Problem(ground_truth, detections, protocol, drop=protocol == "activitynet")
    matchings = list(matched(problem, np.asarray(tious, dtype=np.float64)))
    classes = len(problem.classes)
    truth_videos, truth_labels = np.divmod(problem.truth_keys, classes)
    ends = np.r_[problem.class_start[1:], len(problem.labels)]
    total, present = np.zeros((len(matchings), len(draws))), np.zeros(len(draws))
    for label in range(classes):
        rows = slice(problem.class_start[label], ends[label])
        positives = draws[:, truth_videos[truth_labels == label]].sum(axis=1)
        own = [
            Hits(hits.rows[problem.labels[hits.rows] == label] - rows.start, hits.counted[rows]) for hits in matchings
        ]
        total += _of_class(problem.videos[rows], own, draws, positives, protocol)
        present += positives > 0
    with np.errstate(invalid="ignore"):
        return np.asarray((total / present).mean(axis=0))


def _of_class(
    videos: NDArray[np.int64],
    matchings: Sequence[Hits],
    draws: NDArray[np.int64],
    positives: Floats,
    protocol: Protocol,
) -> Floats:
    """AP of one class at each threshold in each draw, (T, R); 0 where the draw has no ground truth of it.

    Args:
        videos: (n,) of the class's detections, best first; -1: not of the ground truth, always there once.
        positives: (R,) ground-truth segments in each draw.
    """
    found = np.zeros((len(matchings), len(draws)))
    at_once = max(1, WEIGHTS_AT_ONCE // max(1, len(videos)))
    for start in range(0, len(draws), at_once):
        part = slice(start, start + at_once)
        weights = np.where(videos < 0, 1, draws[part][:, videos]).astype(np.float64)
        down_to = np.cumsum(weights, axis=1)
        for index, hits in enumerate(matchings):
            counted = down_to if hits.counted.all() else np.cumsum(weights * hits.counted, axis=1)
            true = weights[:, hits.rows]
            precision = np.cumsum(true, axis=1) / np.maximum(counted[:, hits.rows], 1)
            if protocol == "activitynet":
                precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            found[index, part] = (true * precision).sum(axis=1) / np.maximum(positives[part], 1)
    return found
