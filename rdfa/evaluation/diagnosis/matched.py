"""Detections matched to the ground truth at each tIoU threshold, and the (normalised) AP of any part of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdfa.data.annotations import Annotations
from rdfa.data.detections import Detections
from rdfa.errors import RdfaError
from rdfa.evaluation.ground_truth import name_ranks, neither_empty_nor_repeated, video_indices
from rdfa.evaluation.matching import match_in_turn, overlapping_pairs
from rdfa.ops.segments import tiou


@dataclass(frozen=True, eq=False)
class Matched:
    """G instances of K classes, n detections of these classes, and who has whom at T thresholds.

    Detections are in evaluation order: by class, then by descending score, then by the video's name.
    """

    tious: NDArray[np.float64]
    """(T,) thresholds."""
    positives: NDArray[np.int64]
    """(K,): instances of each class."""
    truth_videos: NDArray[np.int64]
    """(G,): index into the videos of the annotations."""
    truth_segments: NDArray[np.float64]
    """(G, 2): seconds."""
    truth_labels: NDArray[np.int64]
    """(G,): index of a class that has ground truth."""
    videos: NDArray[np.int64]
    """(n,): as `truth_videos`; -1 where the ground truth lacks the video."""
    segments: NDArray[np.float64]
    """(n, 2): seconds."""
    labels: NDArray[np.int64]
    """(n,): as `truth_labels`, non-decreasing."""
    partners: NDArray[np.int64]
    """(T, n): row of the instance that the detection has found, or -1: a false positive."""

    @property
    def instances_per_class(self) -> float:
        """N: the mean of `positives`."""
        return float(self.positives.mean())

    @property
    def ranks(self) -> NDArray[np.int64]:
        """(n,): 0 for the best detection of its class, and so on."""
        return np.arange(len(self.labels)) - np.searchsorted(self.labels, self.labels)


def match(ground_truth: Annotations, detections: Detections, tious: NDArray[np.float64]) -> Matched:
    """Match as the `activitynet` protocol does, all thresholds; which detections and ground truth count is its, too.

    Raises:
        RdfaError: no ground truth.
    """
    truth_videos, truth_segments, truth_labels = ground_truth.columns()
    kept = neither_empty_nor_repeated(truth_videos, truth_segments, truth_labels)
    if not kept.any():
        raise RdfaError("there is no ground truth to evaluate against: no video of the subset has a segment")
    truth_videos, truth_segments = truth_videos[kept], truth_segments[kept]
    present, truth_labels = np.unique(truth_labels[kept], return_inverse=True)

    number = {ground_truth.classes[label]: index for index, label in enumerate(present.tolist())}
    class_of_label = np.array([number.get(name, -1) for name in detections.classes] or [-1], dtype=np.int64)
    labels = class_of_label[detections.label_index]
    order = np.lexsort((name_ranks(detections.videos)[detections.video_index], -detections.scores, labels))
    order = order[np.searchsorted(labels[order], 0) :]  # without the labels that have no ground truth: -1
    labels, segments = labels[order], detections.segments[order]
    videos = video_indices(ground_truth, detections)[detections.video_index[order]]

    rows, truths, overlaps = overlapping_pairs(
        np.where(videos < 0, -1, videos * len(present) + labels),
        segments,
        truth_videos * len(present) + truth_labels,
        truth_segments,
        tiou,
        tious.min(),
    )
    by_choice = np.lexsort((truths, -overlaps, rows))
    rows, truths, overlaps = rows[by_choice], truths[by_choice], overlaps[by_choice]
    partners = np.full((len(tious), len(labels)), -1, dtype=np.int64)
    for own, threshold in zip(partners, tious, strict=True):
        near = np.flatnonzero(overlaps >= threshold)
        pairs = near[match_in_turn(rows[near], truths[near])]
        own[rows[pairs]] = truths[pairs]
    return Matched(
        tious=tious,
        positives=np.bincount(truth_labels),
        truth_videos=truth_videos,
        truth_segments=truth_segments,
        truth_labels=truth_labels,
        videos=videos,
        segments=segments,
        labels=labels,
        partners=partners,
    )


def precision_at_hits(
    labels: NDArray[np.int64], true: NDArray[np.bool_], positives: NDArray[np.int64], instances: float | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows of the true positives (h,) and precision among the detections of their class down to each (h,).

    Args:
        labels: (n,) non-decreasing, within a class by descending score; true: (n,) which have found an instance.
        positives: (K,) instances to be found of each class.
        instances: N of normalised precision; None: ordinary precision.
    """
    hits = np.flatnonzero(true)
    own = labels[hits]
    found = np.arange(1, len(hits) + 1) - np.searchsorted(own, own)
    wrong = hits - np.searchsorted(labels, own) + 1 - found
    worth = found if instances is None else found / positives[own] * instances
    return hits, np.asarray(worth / (worth + wrong), dtype=np.float64)


def average_precision(
    labels: NDArray[np.int64], true: NDArray[np.bool_], positives: NDArray[np.int64], instances: float | None
) -> NDArray[np.float64]:
    """Interpolated AP or AP_N of each class (K,), NaN for a class without instances; arguments as above."""
    hits, precision = precision_at_hits(labels, true, positives, instances)
    own = labels[hits]
    for part in np.split(precision, np.searchsorted(own, np.arange(1, len(positives)))):
        part[::-1] = np.maximum.accumulate(part[::-1])
    total = np.bincount(own, weights=precision, minlength=len(positives))
    return np.asarray(np.divide(total, positives, out=np.full(len(positives), np.nan), where=positives > 0))
