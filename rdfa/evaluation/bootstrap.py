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
from scipy.sparse import csr_array

from rdfa.data.annotations import Annotations
from rdfa.data.detections import Detections
from rdfa.evaluation.average_precision import Hits, Problem, Protocol, matched

WEIGHTS_AT_ONCE = 1 << 22
"""Bounds the memory: a weight for each draw and each true positive, or video, of a class."""

Floats = NDArray[np.float64]


def draw_videos(videos: int, replicates: int, seed: int) -> NDArray[np.int32]:
    """How often each of `videos` is in each draw: (replicates, videos), rows sum to `videos`."""
    random, shares = np.random.default_rng(seed), np.full(videos, 1 / videos)
    draws = np.empty((replicates, videos), dtype=np.int32)
    for draw in draws:
        draw[:] = random.multinomial(videos, shares)
    return draws


def replicate_average(
    ground_truth: Annotations,
    detections: Detections,
    tious: Sequence[float],
    protocol: Protocol,
    draws: NDArray[np.integer],
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
    truth_videos, truth_labels = np.divmod(problem.truth_keys, len(problem.classes))
    truth_videos = truth_videos[np.argsort(truth_labels, kind="stable")]
    truth_bounds = np.r_[0, np.cumsum(problem.positives)]
    row_bounds = np.r_[problem.class_start, len(problem.labels)]
    hit_bounds = [np.asarray(np.searchsorted(hits.rows, row_bounds)) for hits in matchings]
    total, present = np.zeros((len(matchings), len(draws))), np.zeros(len(draws))
    for label in range(len(problem.classes)):
        rows = slice(*row_bounds[label : label + 2])
        own = [
            Hits(hits.rows[slice(*bounds[label : label + 2])] - rows.start, hits.counted[rows])
            for hits, bounds in zip(matchings, hit_bounds, strict=True)
        ]
        positives = draws[:, truth_videos[slice(*truth_bounds[label : label + 2])]].sum(axis=1)
        total += _of_class(problem.videos[rows], own, draws, positives, protocol)
        present += positives > 0
    with np.errstate(invalid="ignore"):
        return np.asarray((total / present).mean(axis=0))


def _of_class(
    videos: NDArray[np.int64],
    matchings: Sequence[Hits],
    draws: NDArray[np.integer],
    positives: Floats,
    protocol: Protocol,
) -> Floats:
    """AP of one class at each threshold in each draw, (T, R); 0 where the draw has no ground truth of it.

    Precision is needed at true positives only, which are few; so the detections between two of them are counted by
    video first, whatever the draw, and a draw weights these counts.

    Args:
        videos: (n,) of the class's detections, best first; -1: not of the ground truth, always there once.
        positives: (R,) ground-truth segments in each draw.
    """
    found = np.zeros((len(matchings), len(draws)))
    ends = np.unique(np.concatenate([hits.rows for hits in matchings]))  # (u,) what is a true positive anywhere
    if len(ends) == 0:
        return found
    here, video_of_end = np.unique(videos[ends], return_inverse=True)
    all_counted = all(hits.counted.all() for hits in matchings)
    shared = _Counts(videos, ends, matchings[0].counted) if all_counted else None
    counts = [shared or _Counts(videos, ends, hits.counted) for hits in matchings]
    at_once = max(1, WEIGHTS_AT_ONCE // max(len(ends), *(len(each.videos) for each in counts)))
    for start in range(0, len(draws), at_once):
        part = slice(start, start + at_once)
        weights = draws[part][:, here].T[video_of_end].astype(np.float64)  # (u, R)
        down_to = shared.down_to(draws[part]) if shared else None
        for index, (hits, own) in enumerate(zip(matchings, counts, strict=True)):
            at = np.searchsorted(ends, hits.rows)
            counted = (own.down_to(draws[part]) if down_to is None else down_to)[at]
            true = weights[at]
            precision = np.cumsum(true, axis=0) / np.maximum(counted, 1)
            if protocol == "activitynet":
                precision = np.maximum.accumulate(precision[::-1])[::-1]
            found[index, part] = (true * precision).sum(axis=0) / np.maximum(positives[part], 1)
    return found


class _Counts:
    """How many of a class's detections each video has between one true positive and the next."""

    def __init__(self, videos: NDArray[np.int64], ends: NDArray[np.int64], counted: NDArray[np.bool_]) -> None:
        rows = np.flatnonzero(counted[: ends[-1] + 1])  # what ranks after the last true positive counts for nothing
        before = np.searchsorted(ends, rows)
        known = videos[rows] >= 0
        self.videos, columns = np.unique(videos[rows[known]], return_inverse=True)
        ones, shape = np.ones(int(known.sum())), (len(ends), len(self.videos))
        self._between = csr_array((ones, (before[known], columns)), shape=shape)
        self._unknown = np.bincount(before[~known], minlength=len(ends)).astype(np.float64)

    def down_to(self, draws: NDArray[np.integer]) -> Floats:
        """Detections down to each true positive in each draw: (u, R) of draws (R, V)."""
        weights = np.ascontiguousarray(draws[:, self.videos].T, dtype=np.float64)
        return np.asarray(np.cumsum(self._between @ weights + self._unknown[:, None], axis=0))
