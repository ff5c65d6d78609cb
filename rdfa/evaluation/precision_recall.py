"""Precision against recall, mean over the classes, so that the area under a curve is the mAP at its threshold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdfa.data.annotations import Annotations
from rdfa.data.detections import Detections
from rdfa.evaluation.diagnosis.matched import match, precision_at_hits

STEPS = 200
"""Points of a curve; a class's recall moves by one over its number of instances."""


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Curves of one file of detections at T thresholds."""

    tious: NDArray[np.float64]
    """(T,) thresholds."""
    recall: NDArray[np.float64]
    """(R,): the middles of R equal parts of [0, 1]."""
    precision: NDArray[np.float64]
    """(T, R): interpolated as for AP (the best at this recall or a higher one), mean over the classes; a class that
    never reaches a recall counts as 0 there."""


def precision_recall(
    ground_truth: Annotations, detections: Detections, tious: Sequence[float], steps: int = STEPS
) -> PrecisionRecall:
    """The curves of `detections`, matched as in the `activitynet` protocol of `average_precision`.

    Args:
        ground_truth: `read_annotations(path, faulty="keep").subset(name)`.

    Raises:
        RdfaError: no ground truth.
    """
    matched = match(ground_truth, detections, np.asarray(tious, dtype=np.float64))
    recall = (np.arange(steps) + 0.5) / steps
    classes = np.arange(len(matched.positives))
    # Which of a class's instances, in the order of being found, brings it to each recall: (K, R).
    wanted = np.ceil(recall * matched.positives[:, None]).astype(np.int64) - 1
    curves = []
    for partners in matched.partners:
        hits, precision = precision_at_hits(matched.labels, partners >= 0, matched.positives, None)
        curve = np.zeros(steps)
        for own, places in zip(
            np.split(precision, np.searchsorted(matched.labels[hits], classes[1:])), wanted, strict=True
        ):
            best = np.maximum.accumulate(own[::-1])[::-1]
            curve += np.append(best, 0.0)[np.minimum(places, len(best))]
        curves.append(curve / len(classes))
    return PrecisionRecall(tious=matched.tious, recall=recall, precision=np.array(curves))
