"""What kind of errors a detector makes, and on which actions: the diagnosis of DETAD.

Source: Alwassel, Caba Heilbron, Escorcia, Ghanem, "Diagnosing Error in Temporal Action Detectors", ECCV 2018, and the
code released with it (github.com/HumamAlwassel/DETAD), which settles what the paper leaves open. Detections are matched
as in the `activitynet` protocol of `average_precision`; all numbers are averages over the tIoU thresholds alpha.

- `false_positives`: the 10 G best detections (G: ground-truth instances), each a true positive or one of five errors,
  and how much average-mAP_N would gain if the errors of a kind were removed.
- `characteristics`: average-mAP_N on the instances of each bin of coverage, length and number of instances, and the
  share of these instances that is missed.
- `matched`: the matching, and AP_N, which both are made of.

AP_N is AP with normalised precision, p_N = R N / (R N + F): R is recall, F the false positives so far, N the mean
number of instances per class. Unlike precision it does not fall with the number of positives, so that a rare class or
a small bin can be compared with a common one.

Where we do not follow the released code, our choice and the reason:

- N is the exact mean. (The code divides integers, as Python 2 does.)
- Ground truth counts as in our mAP: without empty and repeated segments. (The code keeps repeated ones, and drops
  instances that are longer than their video, whose coverage is taken as 1 here.)
- An error is judged by the ground truth with the largest tIoU; among equal ones by that of the detection's own class,
  then the earlier in the file. (The code: the first in the file. In THUMOS-14 every CliffDiving is a Diving too.)
- A class without detections has AP_N 0 (the code stops), and all detections in a video without ground truth are
  background errors (the code compares all but the first of them with the video before).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdfa.data.annotations import Annotations
from rdfa.data.detections import Detections
from rdfa.errors import RdfaError
from rdfa.evaluation.diagnosis.characteristics import (
    CHARACTERISTICS,
    LEAST_PRECISION,
    Bins,
    Characteristic,
    assess,
    missed_instances,
    quantile_bins,
    values_of,
)
from rdfa.evaluation.diagnosis.false_positives import FalsePositives, profile
from rdfa.evaluation.diagnosis.matched import average_precision, match


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The whole diagnosis of one file of detections."""

    tious: NDArray[np.float64]
    """(T,) thresholds alpha."""
    ground_truth: int
    """G: instances evaluated against."""
    detections: int
    """Detections of the classes that have ground truth."""
    outside: int
    """Of these, detections in videos that the ground truth lacks: background errors."""
    dropped: int
    """Detections left out, since their label has no ground truth here."""
    instances_per_class: float
    """N."""
    mean_ap: NDArray[np.float64]
    """(T,) mAP, not normalised: equal to `mean_average_precision`'s."""
    mean_ap_n: NDArray[np.float64]
    """(T,) mAP_N, of all detections."""
    missed: float
    """Share of all instances that is missed, mean over the thresholds."""
    false_positives: FalsePositives
    characteristics: tuple[Characteristic, ...]

    @property
    def average(self) -> float:
        """Average-mAP_N."""
        return float(self.mean_ap_n.mean())

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values; None stands for a bin without instances."""
        return {
            "method": "DETAD",
            "tiou": self.tious.tolist(),
            "ground_truth": self.ground_truth,
            "detections": self.detections,
            "detections_in_other_videos": self.outside,
            "detections_dropped": self.dropped,
            "instances_per_class": self.instances_per_class,
            "mAP": self.mean_ap.tolist(),
            "mAP_N": self.mean_ap_n.tolist(),
            "average_mAP": float(self.mean_ap.mean()),
            "average_mAP_N": self.average,
            "missed": self.missed,
            "least_normalised_precision_of_found": LEAST_PRECISION,
            "false_positives": self.false_positives.as_json(),
            "characteristics": {each.name: each.as_json() for each in self.characteristics},
        }


def diagnose(
    ground_truth: Annotations,
    detections: Detections,
    tious: Sequence[float],
    bins: Mapping[str, Bins] | None = None,
) -> Diagnosis:
    """Diagnose `detections` against one subset of a data set's annotations; see the module for the rules.

    Args:
        ground_truth: `read_annotations(path, faulty="keep").subset(name)`.
        tious: thresholds, each in (0, 1]: those of the data set's average mAP.
        bins: characteristic → its bins, such as `ACTIVITYNET`; for a characteristic that is not named, five bins with
            about as many instances each.

    Raises:
        RdfaError: a threshold outside (0, 1], no ground truth, a characteristic that does not exist, bins that do not
            cover the data.
    """
    thresholds = np.asarray(tious, dtype=np.float64)
    if thresholds.ndim != 1 or len(thresholds) == 0 or not ((thresholds > 0) & (thresholds <= 1)).all():
        raise RdfaError(f"tIoU thresholds must be in (0, 1], but are {list(tious)}")
    bins = bins or {}
    unknown = sorted(set(bins) - set(CHARACTERISTICS))
    if unknown:
        raise RdfaError(f"unknown characteristic {unknown[0]!r}; there are {', '.join(CHARACTERISTICS)}")
    matched = match(ground_truth, detections, thresholds)
    values = {name: values_of(name, ground_truth, matched) for name in CHARACTERISTICS}
    chosen = {name: bins[name] if name in bins else quantile_bins(values[name]) for name in CHARACTERISTICS}
    missed = missed_instances(matched)
    plain = [average_precision(matched.labels, row >= 0, matched.positives, None).mean() for row in matched.partners]
    normalised = [
        average_precision(matched.labels, row >= 0, matched.positives, matched.instances_per_class).mean()
        for row in matched.partners
    ]
    return Diagnosis(
        tious=thresholds,
        ground_truth=len(matched.truth_labels),
        detections=len(matched.labels),
        outside=int((matched.videos < 0).sum()),
        dropped=len(detections) - len(matched.labels),
        instances_per_class=matched.instances_per_class,
        mean_ap=np.array(plain),
        mean_ap_n=np.array(normalised),
        missed=float(missed.mean()),
        false_positives=profile(matched),
        characteristics=tuple(
            assess(name, values[name], chosen[name], matched, missed, float(np.mean(normalised)))
            for name in CHARACTERISTICS
        ),
    )
