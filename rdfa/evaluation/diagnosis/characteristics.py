"""Which actions a detector finds: average-mAP_N and misses by coverage, length and number of instances.

Characteristics of an instance: `coverage`, its share of the video's duration; `length`, seconds; `instances`, how many
instances its video has, of all classes (so counted in DETAD's published THUMOS-14 characteristics). Bins are named by
size, XS to XL, and each is the half-open range (lower, upper]; the first includes its lower edge.

Sensitivity. A bin's average-mAP_N is computed on its instances, with all detections except those that have found an
instance of another bin at any of the thresholds (as the released code does; the paper leaves it open), and over the
classes that have an instance in the bin; N stays that of the whole. `sensitivity` is the largest bin's value minus the
smallest, `impact` the largest minus the overall average-mAP_N: what could be gained if all were as easy as the best.
(With several thresholds the bins together are rated a little above the whole: a detection that finds its instance at
0.3 but not at 0.7 is a false positive at 0.7 in the whole, and in its own bin, but in no other.)

False negatives. An instance is missed if no detection finds it, or only one at which normalised precision is at most
0.05: deep in the list of a class nearly everything is found by chance (threshold of the released code).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdfa.data.annotations import Annotations
from rdfa.errors import RdfaError
from rdfa.evaluation.diagnosis.matched import Matched, average_precision, precision_at_hits

CHARACTERISTICS = ("coverage", "length", "instances")
SIZES = ("XS", "S", "M", "L", "XL")
LEAST_PRECISION = 0.05
"""Normalised precision that a detection must exceed to count as finding an instance."""


@dataclass(frozen=True)
class Bins:
    """Ranges of a characteristic.

    Raises:
        RdfaError: edges that do not ascend, or not one to five bins.
    """

    edges: tuple[float, ...]
    """Ascending; bin i is (edges[i], edges[i + 1]]."""

    def __post_init__(self) -> None:
        """Refuse impossible edges."""
        if not all(low < high for low, high in pairwise(self.edges)):  # so refuses NaN
            raise RdfaError(f"bins need ascending edges, but they are {', '.join(f'{e:g}' for e in self.edges)}")
        if not 2 <= len(self.edges) <= len(SIZES) + 1:
            raise RdfaError(f"there can be one to {len(SIZES)} bins, so 2 to {len(SIZES) + 1} edges, not {self.edges}")

    @property
    def names(self) -> tuple[str, ...]:
        """XS, S, ...: one per bin."""
        return SIZES[: len(self.edges) - 1]

    def assign(self, values: NDArray[np.float64], what: str) -> NDArray[np.int64]:
        """Index of the bin of each value (G,).

        Raises:
            RdfaError: a value outside all bins.
        """
        outside = (values < self.edges[0]) | (values > self.edges[-1])
        for value in values[outside][:1].tolist():
            raise RdfaError(
                f"the bins of {what} go from {self.edges[0]:g} to {self.edges[-1]:g}, "
                f"but {int(outside.sum())} instances are outside, the first with {value:g}"
            )
        return np.searchsorted(np.array(self.edges[1:-1]), values, side="left")


ACTIVITYNET = {
    "coverage": Bins((0, 0.2, 0.4, 0.6, 0.8, 1)),
    "length": Bins((0, 30, 60, 120, 180, np.inf)),
    "instances": Bins((0, 1, 4, 8, np.inf)),
}
"""DETAD's bins for ActivityNet."""

THUMOS14 = {
    "coverage": Bins((0, 0.02, 0.04, 0.06, 0.08, 1)),
    "length": Bins((0, 3, 6, 12, 18, np.inf)),
    "instances": Bins((0, 1, 40, 80, np.inf)),
}
"""DETAD's bins for THUMOS-14."""

PRESETS: dict[str, dict[str, Bins]] = {"quantiles": {}, "activitynet": ACTIVITYNET, "thumos14": THUMOS14}
"""Bins by name."""


def quantile_bins(values: NDArray[np.float64]) -> Bins:
    """Five bins with about as many instances each; fewer where many instances have the same value."""
    inner = np.quantile(values, np.arange(1, len(SIZES) + 1) / len(SIZES), method="inverted_cdf")
    return Bins((0.0, *np.unique(inner).tolist()))


@dataclass(frozen=True, eq=False)
class Characteristic:
    """A detector's results by one characteristic; b bins, NaN where a bin is empty."""

    name: str
    bins: Bins
    counts: NDArray[np.int64]
    """(b,): instances."""
    scores: NDArray[np.float64]
    """(b,): average-mAP_N."""
    missed: NDArray[np.float64]
    """(b,): share of the instances that is missed, mean over the thresholds."""
    sensitivity: float
    """Largest minus smallest of `scores`."""
    impact: float
    """Largest of `scores` minus the overall average-mAP_N."""

    def as_json(self) -> dict[str, Any]:
        """Plain values; an infinite edge and the values of an empty bin are None."""
        edges = [edge if np.isfinite(edge) else None for edge in self.bins.edges]
        return {
            "bins": [
                {
                    "name": name,
                    "above": low,
                    "up_to": high,
                    "instances": int(count),
                    "average_mAP_N": None if count == 0 else float(score),
                    "missed": None if count == 0 else float(missed),
                }
                for name, (low, high), count, score, missed in zip(
                    self.bins.names, pairwise(edges), self.counts, self.scores, self.missed, strict=True
                )
            ],
            "sensitivity": self.sensitivity,
            "impact": self.impact,
        }


def values_of(name: str, ground_truth: Annotations, matched: Matched) -> NDArray[np.float64]:
    """Coverage in (0, 1], length in seconds, or number of instances, of each instance (G,)."""
    videos = matched.truth_videos
    lengths = matched.truth_segments[:, 1] - matched.truth_segments[:, 0]
    if name == "length":
        return np.asarray(lengths)
    if name == "coverage":
        durations = np.array([video.duration for video in ground_truth.videos])
        return np.asarray(np.minimum(lengths / durations[videos], 1.0))
    return np.bincount(videos)[videos].astype(np.float64)


def missed_instances(matched: Matched) -> NDArray[np.bool_]:
    """Which instances are missed at each threshold: (T, G)."""
    missed = np.ones((len(matched.tious), len(matched.truth_labels)), dtype=bool)
    for own, partners in zip(missed, matched.partners, strict=True):
        hits, precision = precision_at_hits(
            matched.labels, partners >= 0, matched.positives, matched.instances_per_class
        )
        own[partners[hits[precision > LEAST_PRECISION]]] = False
    return missed


def assess(
    name: str,
    values: NDArray[np.float64],
    bins: Bins,
    matched: Matched,
    missed: NDArray[np.bool_],
    overall: float,
) -> Characteristic:
    """Results by one characteristic.

    Args:
        values: (G,), from `values_of`; missed: (T, G), from `missed_instances`.
        overall: average-mAP_N of all instances.

    Raises:
        RdfaError: a value outside all bins.
    """
    bin_of = bins.assign(values, name)
    found = np.where(matched.partners >= 0, bin_of[matched.partners], -1)
    lowest = np.where(found >= 0, found, len(bins.names)).min(axis=0)
    highest = found.max(axis=0)
    counts = np.bincount(bin_of, minlength=len(bins.names))
    scores = np.full(len(counts), np.nan)
    for index in np.flatnonzero(counts).tolist():
        kept = (highest < 0) | ((lowest == index) & (highest == index))
        positives = np.bincount(matched.truth_labels[bin_of == index], minlength=len(matched.positives))
        labels, instances = matched.labels[kept], matched.instances_per_class
        scores[index] = np.mean(
            [np.nanmean(average_precision(labels, row == index, positives, instances)) for row in found[:, kept]]
        )
    lost = np.bincount(bin_of, weights=missed.mean(axis=0), minlength=len(counts))
    return Characteristic(
        name=name,
        bins=bins,
        counts=counts,
        scores=scores,
        missed=np.divide(lost, counts, out=np.full(len(counts), np.nan), where=counts > 0),
        sensitivity=float(np.nanmax(scores) - np.nanmin(scores)),
        impact=float(np.nanmax(scores) - overall),
    )
