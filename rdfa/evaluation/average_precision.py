"""Mean average precision of temporal detections, in the two protocols of the field.

`activitynet`: what the ActivityNet toolkit, ActionFormer and OpenTAD compute, and so nearly all numbers in TAL
papers, on THUMOS-14 too. Detections of a class, all videos together, are taken by descending score; each is a true
positive if it can take a ground-truth segment of its video with tIoU >= the threshold that no earlier one took, the
one with the largest tIoU first. AP is the area under the precision-recall curve after precision has been made
non-increasing (VOC 2011).

`thumos14`: the evaluation kit of the THUMOS'14 challenge (TH14evalDet), used by papers up to about 2019. In each
video the ground-truth segments are taken in the order of the annotation file, and each takes the free detection of
its class with the largest tIoU, if that is > the threshold. Detections that remain are false positives, unless they
overlap an interval labelled `Ambiguous`: then they do not count. AP is the mean over the ground truth of the
precision at each true positive, not interpolated.

Cases on which results depend and that papers leave out, each as the reference does it:

- Equal scores: the video whose name sorts first, then the earlier in the file. (All references that run on numpy
  sort unstably: with ties their result depends on the processor. The kit sorts like this.)
- Equal tIoU: the earlier ground-truth segment (`activitynet`), the higher score (`thumos14`).
- Ground truth repeated in a video (same class, both bounds within 1 ms of an earlier one) or with its end not after
  its start: dropped in `activitynet`, as by OpenTAD and ActionFormer; counted in `thumos14`, where an empty one can
  never be found. The ActivityNet toolkit counts them too: `count_repeated=True` (its validation set has 24, which is
  why only so its sample, the ground truth handed in as detections, reaches mAP 1).
- Detections in videos that the ground truth lacks: false positives, in both. Evaluate one subset's detections.
- Detections with a label that has no ground truth in the subset: dropped, as by OpenTAD. (ActivityNet's own code
  stops, ActionFormer's counts them for another class.) Such classes are not part of the mean.
- A class without detections has AP 0. No detection at all: mAP 0. No ground truth at all: an error.

What was dropped or stands out is counted in `MeanAveragePrecision.remarks`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from rdfa.data.annotations import Annotations
from rdfa.data.detections import Detections
from rdfa.errors import RdfaError
from rdfa.evaluation.ground_truth import name_ranks, neither_empty_nor_repeated, video_indices
from rdfa.evaluation.matching import match_in_turn, overlapping_pairs
from rdfa.ops.segments import intersection, overlap_over_hull, tiou

Protocol = Literal["activitynet", "thumos14"]

AMBIGUOUS = "Ambiguous"
"""The label whose intervals excuse detections in the `thumos14` protocol; an ordinary label in the other."""


@dataclass(frozen=True, eq=False)
class Remarks:
    """What was not evaluated as it stands in the files, with counts of detections (or of segments)."""

    outside_videos: dict[str, int]
    """Videos that the ground truth lacks → detections there; they count as false positives."""
    unknown_labels: dict[str, int]
    """Labels that no annotation has in any subset → detections dropped."""
    absent_classes: dict[str, int]
    """Classes without ground truth in this subset → detections dropped (0 included)."""
    dropped_ground_truth: int
    """Repeated or empty ground-truth segments left out."""


class Hits(NamedTuple):
    """What a matching at one threshold found, of the detections of a `Problem`."""

    rows: NDArray[np.int64]
    """(h,) the true positives, ascending."""
    counted: NDArray[np.bool_]
    """(n,) those that count at all: not the excused ones."""


@dataclass(frozen=True, eq=False)
class MeanAveragePrecision:
    """The result, with what it was computed from."""

    protocol: Protocol
    tious: NDArray[np.float64]
    """(T,) thresholds."""
    mean: NDArray[np.float64]
    """(T,): mAP at each threshold, over `classes`, in [0, 1]."""
    average: float
    """Mean of `mean`: the average mAP of papers, if `tious` are the data set's."""
    per_class: NDArray[np.float64]
    """(T, K): AP."""
    classes: tuple[str, ...]
    """The K classes that have ground truth, sorted."""
    ground_truth: int
    """Segments evaluated against."""
    detections: int
    """Detections evaluated (dropped ones not counted)."""
    remarks: Remarks

    def as_json(self) -> dict[str, Any]:
        """The result as plain values; `ap` maps class → AP at each threshold."""
        return {
            "protocol": self.protocol,
            "tiou": self.tious.tolist(),
            "mAP": self.mean.tolist(),
            "average_mAP": self.average,
            "ap": {name: self.per_class[:, index].tolist() for index, name in enumerate(self.classes)},
            "ground_truth": self.ground_truth,
            "detections": self.detections,
            "remarks": vars(self.remarks),
        }


def mean_average_precision(
    ground_truth: Annotations,
    detections: Detections,
    tious: Sequence[float],
    protocol: Protocol,
    *,
    count_repeated: bool = False,
) -> MeanAveragePrecision:
    """Evaluate `detections` against one subset of a data set's annotations; see the module for the rules.

    Args:
        ground_truth: `read_annotations(path, faulty="keep").subset(name)`: nothing clipped, as in the references.
        tious: thresholds, each in (0, 1].
        count_repeated: let repeated and empty ground truth count in `activitynet`, as the toolkit does. An empty
            segment is then found by an equal one (in the toolkit, where tIoU is 0/0, by any empty one).

    Raises:
        RdfaError: an unknown protocol, a threshold outside (0, 1], no ground truth.
    """
    thresholds = np.asarray(tious, dtype=np.float64)
    if protocol not in get_args(Protocol):
        raise RdfaError(f"unknown protocol {protocol!r}; there are {' and '.join(get_args(Protocol))}")
    if thresholds.ndim != 1 or len(thresholds) == 0 or not ((thresholds > 0) & (thresholds <= 1)).all():
        raise RdfaError(f"tIoU thresholds must be in (0, 1], but are {list(tious)}")
    drop = protocol == "activitynet" and not count_repeated
    problem = Problem(ground_truth, detections, protocol, drop)
    per_class = np.array([_average_precision(hits, problem) for hits in matched(problem, thresholds)])
    mean = per_class.mean(axis=1)
    return MeanAveragePrecision(
        protocol=protocol,
        tious=thresholds,
        mean=mean,
        average=float(mean.mean()),
        per_class=per_class,
        classes=problem.classes,
        ground_truth=len(problem.truth_segments),
        detections=len(problem.segments),
        remarks=problem.remarks,
    )


class Problem:
    """Ground truth and detections side by side: same class numbers, same group keys, in evaluation order.

    Of the G segments of the ground truth: `truth_segments` (G, 2), `truth_keys` (G,); of the n detections, by class
    and then by descending score: `segments` (n, 2), `labels` (n,) into `classes`, `videos` (n,) into the ground
    truth's or -1, `keys` (n,) which equal a truth key where video and class are the same; `class_start` (K,) the first
    row of each class; `positives` (K,) ground-truth segments of each class.

    Raises:
        RdfaError: there is no ground truth.
    """

    def __init__(self, ground_truth: Annotations, detections: Detections, protocol: Protocol, drop: bool) -> None:
        videos, segments, labels = ground_truth.columns()
        counted = np.ones(len(labels), dtype=bool)
        ambiguous = np.zeros(len(labels), dtype=bool)
        if drop:
            counted = neither_empty_nor_repeated(videos, segments, labels)
        if protocol == "thumos14" and AMBIGUOUS in ground_truth.label_index:
            ambiguous = labels == ground_truth.label_index[AMBIGUOUS]
            counted = ~ambiguous
        self.protocol = protocol
        self.ambiguous_videos, self.ambiguous_segments = videos[ambiguous], segments[ambiguous]

        present, own_class = np.unique(labels[counted], return_inverse=True)
        if len(present) == 0:
            raise RdfaError("there is no ground truth to evaluate against: no video of the subset has a segment")
        self.classes = tuple(ground_truth.classes[index] for index in present)
        self.positives = np.bincount(own_class)
        self.truth_segments = segments[counted]
        self.truth_keys = videos[counted] * len(present) + own_class

        rows = self._take_detections(ground_truth, detections)
        possible = set(ground_truth.classes) - ({AMBIGUOUS} if protocol == "thumos14" else set())
        dropped = len(labels) - len(self.truth_segments) - len(self.ambiguous_videos)
        self.remarks = self._remarks(possible, detections, rows, dropped)

    def _take_detections(self, ground_truth: Annotations, detections: Detections) -> NDArray[np.int64]:
        """Sort the detections; returns their rows (n,) in `detections`."""
        number = {name: index for index, name in enumerate(self.classes)}
        class_of_label = np.array([number.get(name, -1) for name in detections.classes] or [-1], dtype=np.int64)
        labels = class_of_label[detections.label_index]
        by_name = name_ranks(detections.videos)[detections.video_index]
        rows = np.lexsort((by_name, -detections.scores, labels))
        rows = rows[np.searchsorted(labels[rows], 0) :]  # without the labels that have no ground truth: -1
        self.segments = detections.segments[rows]
        self.labels = labels[rows]
        self.videos = video_indices(ground_truth, detections)[detections.video_index[rows]]
        self.keys = np.where(self.videos < 0, -1, self.videos * len(self.classes) + self.labels)
        self.class_start = np.searchsorted(self.labels, np.arange(len(self.classes)))
        return rows

    def _remarks(
        self, possible: set[str], detections: Detections, rows: NDArray[np.int64], dropped_ground_truth: int
    ) -> Remarks:
        outside = np.bincount(detections.video_index[rows][self.videos < 0], minlength=1)
        counts = np.bincount(detections.label_index, minlength=len(detections.classes)).tolist()
        of_label = dict(zip(detections.classes, counts, strict=True))
        return Remarks(
            outside_videos={detections.videos[video]: int(outside[video]) for video in np.flatnonzero(outside)},
            unknown_labels={name: count for name, count in sorted(of_label.items()) if count and name not in possible},
            absent_classes={name: of_label.get(name, 0) for name in sorted(possible - set(self.classes))},
            dropped_ground_truth=dropped_ground_truth,
        )


def matched(problem: Problem, tious: NDArray[np.float64]) -> Iterator[Hits]:
    """The matching at each threshold, by the problem's protocol."""
    return (_match_activitynet if problem.protocol == "activitynet" else _match_thumos14)(problem, tious)


def _match_activitynet(problem: Problem, tious: NDArray[np.float64]) -> Iterator[Hits]:
    """Detections choose."""
    rows, truths, overlaps = overlapping_pairs(
        problem.keys, problem.segments, problem.truth_keys, problem.truth_segments, _tiou_or_equal, tious.min()
    )
    order = np.lexsort((truths, -overlaps, rows))
    rows, truths, overlaps = rows[order], truths[order], overlaps[order]
    counted = np.ones(len(problem.labels), dtype=bool)
    for threshold in tious:
        near = overlaps >= threshold
        yield Hits(rows[near][match_in_turn(rows[near], truths[near])], counted)


def _tiou_or_equal(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """tIoU, but 1 for two equal segments of no length."""
    return np.where((first == second).all(axis=-1), 1.0, tiou(first, second))


def _match_thumos14(problem: Problem, tious: NDArray[np.float64]) -> Iterator[Hits]:
    """Ground-truth segments choose."""
    segments = np.sort(problem.truth_segments, axis=1)  # the kit swaps reversed bounds
    rows, truths, overlaps = overlapping_pairs(
        problem.keys, problem.segments, problem.truth_keys, segments, overlap_over_hull, tious.min()
    )
    order = np.lexsort((rows, -overlaps, truths))
    rows, truths, overlaps = rows[order], truths[order], overlaps[order]
    ambiguous, _, _ = overlapping_pairs(
        problem.videos,
        problem.segments,
        problem.ambiguous_videos,
        problem.ambiguous_segments,
        intersection,
        np.nextafter(0, 1),
    )
    for threshold in tious:
        near = overlaps > threshold
        hits = np.sort(rows[near][match_in_turn(truths[near], rows[near])])
        counted = np.ones(len(problem.labels), dtype=bool)
        counted[ambiguous] = False
        counted[hits] = True
        yield Hits(hits, counted)


def _average_precision(hits: Hits, problem: Problem) -> NDArray[np.float64]:
    """AP of each class (K,)."""
    rows, labels = hits.rows, problem.labels[hits.rows]
    counted = np.cumsum(hits.counted)
    before = np.r_[0, counted][problem.class_start[labels]]
    true = np.arange(1, len(rows) + 1) - np.searchsorted(labels, labels)
    precision = np.asarray(true / (counted[rows] - before))
    if problem.protocol == "activitynet":
        for own in np.split(precision, np.searchsorted(labels, np.arange(1, len(problem.classes)))):
            own[::-1] = np.maximum.accumulate(own[::-1])
    total = np.bincount(labels, weights=precision, minlength=len(problem.classes))
    return np.asarray(total / problem.positives)
