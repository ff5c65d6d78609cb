"""How much of the ground truth a detector finds, whatever its labels or ranking: recall metrics.

`average_recall`: ActivityNet's proposal task, AR@AN and the area under its curve, labels ignored.
`recall_at_multiples`: the share of ground truth found per class among the best k x M detections (Ego4D's and
ActionFormer's recall@kx).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdfa.data.annotations import Annotations
from rdfa.data.detections import Detections
from rdfa.errors import RdfaError
from rdfa.evaluation.ground_truth import name_ranks, neither_empty_nor_repeated, video_indices
from rdfa.evaluation.matching import overlapping_pairs
from rdfa.ops.segments import tiou

NEVER = np.iinfo(np.int64).max
"""The rank at which a segment is found that is not."""


@dataclass(frozen=True, eq=False)
class AverageRecall:
    """Recall against the average number of proposals per video (AN)."""

    tious: NDArray[np.float64]
    """(T,) thresholds."""
    numbers: NDArray[np.float64]
    """(N,): AN = 1, 2, ..., `max_proposals`, up to rounding."""
    recall: NDArray[np.float64]
    """(T, N), in [0, 1]."""
    auc: float
    """Area under mean recall over `numbers`, divided by the last of them, in [0, 1]; papers print it times 100."""

    def at(self, number: int) -> float:
        """AR@`number`: recall averaged over the thresholds, at an average of `number` proposals a video."""
        if not 1 <= number <= len(self.numbers):
            raise RdfaError(f"AR@{number} is not available: recall was computed for 1 to {len(self.numbers)} proposals")
        return float(self.recall[:, number - 1].mean())

    def as_json(self, numbers: Sequence[int] = (1, 5, 10, 100)) -> dict[str, Any]:
        """AUC, AR@ those of `numbers` that were computed, and the whole recall matrix as plain values."""
        return {
            "AUC": self.auc,
            **{f"AR@{number}": self.at(number) for number in numbers if number <= len(self.numbers)},
            "tiou": self.tious.tolist(),
            "proposals_per_video": self.numbers.tolist(),
            "recall": self.recall.tolist(),
        }


def average_recall(
    ground_truth: Annotations, proposals: Detections, tious: Sequence[float], max_proposals: int = 100
) -> AverageRecall:
    """Average recall at AN = 1..max_proposals as in ActivityNet's `eval_proposal.py` (and OpenTAD's `Recall`).

    Each video contributes its best proposals in proportion to how many it has: of a video with n proposals the best
    int(n * r) are kept, r = max_proposals * videos / all proposals, at most all of them; and AN = j stands for the
    share j * videos / kept proposals of each video's kept ones. "Videos" are those with ground truth; proposals in
    other videos count in "all proposals" only, as in the reference. A segment is found when some proposal has
    tIoU >= the threshold; a proposal may find several. Ground truth that is empty or repeated is dropped (OpenTAD;
    see `average_precision`). Equal scores: the earlier in the file. No proposal: recall 0.

    Raises:
        RdfaError: no ground truth.
    """
    thresholds = np.asarray(tious, dtype=np.float64)
    truth_videos, truths = _truth(ground_truth)[:2]
    videos, owner = np.unique(truth_videos, return_inverse=True)
    n_videos = len(videos)

    place = np.full(len(ground_truth.videos) + 1, -1)
    place[videos] = np.arange(n_videos)
    of_row = place[video_indices(ground_truth, proposals)[proposals.video_index]]
    rows = np.lexsort((-proposals.scores, of_row))
    rows = rows[np.searchsorted(of_row[rows], 0) :]
    of_row = of_row[rows]
    rank = _position_in_group(of_row)
    sizes = np.bincount(of_row, minlength=n_videos)
    ratio = max_proposals * float(n_videos) / max(len(proposals), 1)
    sizes = np.minimum((sizes * ratio).astype(np.int64), sizes)
    within = rank < sizes[of_row]
    rows, of_row, rank = rows[within], of_row[within], rank[within]
    if len(rows) == 0:
        numbers = np.arange(1.0, max_proposals + 1)
        return AverageRecall(thresholds, numbers, np.zeros((len(thresholds), max_proposals)), 0.0)

    shares = np.arange(1, max_proposals + 1) / max_proposals * (max_proposals * float(n_videos) / len(rows))
    allowed = np.minimum((sizes[:, None] * shares).astype(np.int64), sizes[:, None])[owner]
    found_at = _first_found(of_row, proposals.segments[rows], rank, owner, truths, thresholds)
    recall = np.array([(first[:, None] < allowed).mean(axis=0) for first in found_at])
    numbers = shares * (len(rows) / n_videos)
    auc = float(np.trapezoid(recall.mean(axis=0), numbers) / numbers[-1])
    return AverageRecall(thresholds, numbers, recall, auc)


def recall_at_multiples(
    ground_truth: Annotations, detections: Detections, tious: Sequence[float], multiples: Sequence[int] = (1, 5)
) -> NDArray[np.float64]:
    """Recall@kx, averaged over classes: (T, len(multiples)), in [0, 1].

    Of each video and class with M ground-truth segments the best k * M detections of that class are looked at; a
    segment is found when one of them has tIoU >= the threshold. Ground truth, ties and unknown labels as in the
    `activitynet` protocol of `average_precision`.

    Raises:
        RdfaError: no ground truth.
    """
    thresholds = np.asarray(tious, dtype=np.float64)
    truth_videos, truths, truth_labels = _truth(ground_truth)
    classes = len(ground_truth.classes)
    truth_keys = truth_videos * classes + truth_labels

    label_of = np.array([ground_truth.label_index.get(name, -1) for name in detections.classes] or [-1])
    labels = label_of[detections.label_index]
    videos = video_indices(ground_truth, detections)[detections.video_index]
    keys = np.where((labels < 0) | (videos < 0), -1, videos * classes + labels)
    rows = np.lexsort((name_ranks(detections.videos)[detections.video_index], -detections.scores, keys))
    keys = keys[rows]
    found_at = _first_found(keys, detections.segments[rows], _position_in_group(keys), truth_keys, truths, thresholds)

    _, group, sizes = np.unique(truth_keys, return_inverse=True, return_counts=True)
    limits = sizes[group][:, None] * np.asarray(multiples)
    present, own_class = np.unique(truth_labels, return_inverse=True)
    totals = np.bincount(own_class, minlength=len(present))
    result = np.empty((len(thresholds), len(multiples)))
    for row, first in enumerate(found_at):
        for column in range(len(multiples)):
            hits = np.bincount(own_class, weights=first < limits[:, column], minlength=len(present))
            result[row, column] = (hits / totals).mean()
    return result


def _truth(ground_truth: Annotations) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Video indices, segments and labels of the ground truth that counts; refuses to have none."""
    videos, segments, labels = ground_truth.columns()
    kept = neither_empty_nor_repeated(videos, segments, labels)
    if not kept.any():
        raise RdfaError("there is no ground truth to evaluate against: no video of the subset has a segment")
    return videos[kept], segments[kept], labels[kept]


def _position_in_group(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2, ... within each run of equal `keys`, which are sorted."""
    return np.arange(len(keys)) - np.searchsorted(keys, keys)


def _first_found(
    keys: NDArray[np.int64],
    segments: NDArray[np.float64],
    rank: NDArray[np.int64],
    truth_keys: NDArray[np.int64],
    truths: NDArray[np.float64],
    thresholds: NDArray[np.float64],
) -> list[NDArray[np.int64]]:
    """For each threshold the lowest `rank` of a segment of the same key that finds each truth, or `NEVER`: (G,)."""
    rows, partners, overlaps = overlapping_pairs(keys, segments, truth_keys, truths, tiou, thresholds.min())
    found = []
    for threshold in thresholds:
        near = overlaps >= threshold
        first = np.full(len(truths), NEVER)
        np.minimum.at(first, partners[near], rank[rows[near]])
        found.append(first)
    return found
