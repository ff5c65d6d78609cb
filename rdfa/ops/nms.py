"""Non-maximum suppression of temporal segments, and segment voting. Numpy in, numpy out, no compiler.

Results equal those of ActionFormer's C++ extension (`nms_1d_cpu` inside `batched_nms`; RDFA-S6 ships the same file),
its constants included. How the time is saved: soft-NMS only ever lowers scores, so the classes' outputs merged by
score are what one greedy pass over all classes produces. The pass takes the best segment of all, lowers its own
class, and stops as soon as `max_segments` are out: 200 steps where the extension takes up to 200 per class.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rdfa.ops.segments import tiou_matrix

Method = Literal["hard", "linear", "gaussian"]
VotingWeight = Literal["score_times_tiou", "score"]

LENGTH_OFFSET = 1e-6
"""Added to every length when suppressing, as in the extension; keeps the tIoU of two empty segments defined."""


def nms(
    segments: NDArray[Any],
    scores: NDArray[Any],
    labels: NDArray[Any],
    *,
    method: Method = "gaussian",
    tiou_threshold: float = 0.1,
    sigma: float = 0.5,
    min_score: float = 0.001,
    max_segments: int | None = 200,
    multiclass: bool = True,
    voting_threshold: float = 0.0,
    voting_weight: VotingWeight = "score_times_tiou",
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Thin out the detections of one video.

    Repeatedly takes the segment with the highest score and lowers the scores of those that overlap it with tIoU o:
    `hard` drops them where o >= tiou_threshold; `linear` multiplies by 1 - o there (Bodla et al., ICCV 2017);
    `gaussian` multiplies all by exp(-o²/sigma) and ignores the threshold.

    Equal scores: the lower label first, then the earlier row. (The extension leaves it to its swaps.)

    Args:
        segments: (N, 2) start and end, in any unit; float32 is computed in float32 like the extension.
        scores: (N,), finite.
        labels: (N,) integers.
        min_score: `hard` considers scores above it only; the soft methods drop a segment whose score falls below it.
            As in the extension the best segment of each class is exempt in the soft methods.
        max_segments: at most so many are returned; None for no limit.
        multiclass: suppress within each class only, instead of across classes.
        voting_threshold: with 0 < voting_threshold, each segment that is left is replaced by the mean of all the
            segments given whose tIoU with it is at least this, weighted by `voting_weight` with scores as given.
            Like the references, only when not `multiclass`.
        voting_weight: `score_times_tiou` as in ActionFormer, `score` as in the released RDFA-S6.

    Returns:
        segments (M, 2), scores (M,) after suppression in descending order, labels (M,).
    """
    if len(scores) == 0:
        return segments[:0].reshape(0, 2), scores[:0], labels[:0]
    groups = np.asarray(labels) if multiclass else np.zeros(len(scores), dtype=np.int64)
    order = np.argsort(groups, kind="stable")
    suppression = _Suppression(segments[order], scores[order], groups[order], method, tiou_threshold, sigma, min_score)
    rows, kept_scores = suppression.run(len(scores) if max_segments is None else max_segments)
    rows = order[rows]
    kept = segments[rows]
    if voting_threshold > 0 and not multiclass:
        kept = vote(kept, segments, scores, voting_threshold, voting_weight)
    return kept, kept_scores, labels[rows]


def vote(
    kept: NDArray[Any],
    segments: NDArray[Any],
    scores: NDArray[Any],
    threshold: float,
    weight: VotingWeight = "score_times_tiou",
) -> NDArray[Any]:
    """Replace each segment of `kept` (M, 2) by the weighted mean of its neighbours in `segments` (N, 2): (M, 2).

    Neighbours have tIoU >= threshold; see `nms` for the weights. Where they have no weight at all (a kept segment
    of no length, only zero scores) the segment stays as it is; the reference returns NaN.
    """
    overlap = tiou_matrix(kept, segments)
    weights = np.where(overlap >= threshold, scores[None, :], 0).astype(segments.dtype, copy=False)
    if weight == "score_times_tiou":
        weights = weights * overlap
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (weights / total) @ segments
    return np.asarray(np.where(total > 0, means, kept))


class _Suppression:
    """The greedy pass over all groups; the rows of one group lie together."""

    def __init__(
        self,
        segments: NDArray[Any],
        scores: NDArray[Any],
        groups: NDArray[Any],
        method: Method,
        tiou_threshold: float,
        sigma: float,
        min_score: float,
    ) -> None:
        self.start = np.ascontiguousarray(segments[:, 0])
        self.end = np.ascontiguousarray(segments[:, 1])
        self.length = self.end - self.start + segments.dtype.type(LENGTH_OFFSET)
        self.score = scores.copy()
        self.method = method
        self.threshold = segments.dtype.type(tiou_threshold)
        self.sigma = sigma
        self.min_score = scores.dtype.type(min_score)
        firsts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
        self.bounds = list(zip(firsts.tolist(), [*firsts[1:].tolist(), len(groups)], strict=True))
        if method == "hard" and min_score > 0:
            self.score[self.score <= self.min_score] = -np.inf

    def run(self, limit: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Rows in the order in which they are taken, and their scores at that moment; at most `limit`."""
        best_row = np.array([low + int(self.score[low:high].argmax()) for low, high in self.bounds])
        best_score = self.score[best_row]
        rows: list[int] = []
        scores: list[Any] = []
        for _ in range(limit):
            group = int(best_score.argmax())
            score, row = best_score[group], int(best_row[group])
            if score == -np.inf:
                break
            rows.append(row)
            scores.append(score)
            low, high = self.bounds[group]
            self._lower(row, low, high)
            best_row[group] = row = low + int(self.score[low:high].argmax())
            best_score[group] = self.score[row]
        return np.array(rows, dtype=np.int64), np.array(scores, dtype=self.score.dtype)

    def _lower(self, row: int, low: int, high: int) -> None:
        """Take `row` out and lower the scores of its group, rows low to high."""
        score = self.score[low:high]
        score[row - low] = -np.inf
        overlap = np.minimum(self.end[low:high], self.end[row])
        overlap -= np.maximum(self.start[low:high], self.start[row])
        near = np.flatnonzero((overlap > 0) & (score > -np.inf))
        inter = overlap[near]
        ratio = inter / (self.length[row] + self.length[low:high][near] - inter)
        if self.method == "gaussian":
            # In double precision, rounded once: at most one rounding away from the C library's expf.
            exponent = -(ratio * ratio) / score.dtype.type(self.sigma)
            score[near] *= np.exp(exponent.astype(np.float64)).astype(score.dtype)
        elif self.method == "linear":
            score[near] *= np.where(ratio >= self.threshold, 1 - ratio, 1)
        else:
            score[near[ratio >= self.threshold]] = -np.inf
            return
        score[score < self.min_score] = -np.inf
