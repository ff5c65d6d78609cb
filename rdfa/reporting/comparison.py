"""What a row's seeds and test videos allow to say: intervals of a mean over runs, and of a change between two rows.

Each run's metrics hold the average mAP of the same random draws of the test videos (rdfa.evaluation.bootstrap). Here
the seeds are drawn too, with replacement, anew for each draw of videos: an interval covers both the choice of the
videos and the chance in training. A change is taken seed by seed and draw by draw, so that what both rows share (hard
videos, a lucky initialisation) cancels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from rdfa.errors import RdfaError
from rdfa.schema import Bootstrap

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """Percentile interval."""

    low: float
    high: float


def replicates_of(results: Sequence[Mapping[str, Any]]) -> Floats:
    """Average mAP per run and draw, (S, R), in per cent, from the metrics of a row's runs.

    Raises:
        RdfaError: the runs were not drawn alike.
    """
    found = [result["bootstrap"] for result in results]
    for one in found[1:]:
        if (one["seed"], one["replicates"]) != (found[0]["seed"], found[0]["replicates"]):
            raise RdfaError(
                f"{results[0]['run']} and others of its row differ in evaluation.bootstrap: give all rows the same"
            )
    return 100 * np.array([[np.nan if value is None else value for value in one["average_mAP"]] for one in found])


def change_of(own: Floats, other: Floats, row: str, against: str) -> Floats:
    """Replicates of the difference of two rows, seed by seed and draw by draw: (S, R).

    Raises:
        RdfaError: the rows were not drawn alike.
    """
    if own.shape != other.shape:
        raise RdfaError(f"{row!r} and {against!r} differ in seeds or in evaluation.bootstrap: give both the same")
    return own - other


def interval(replicates: Floats, bootstrap: Bootstrap) -> Interval:
    """Of the mean over S seeds, from replicates (S, R).

    A bootstrap of few seeds is too narrow: of S values drawn from S the variance is too small by S / (S - 1), and S
    values say little about their own spread. Deviations from the mean over all seeds are widened by the root of the one
    and, for the other, by Student's quantile over the normal one. One seed: the interval is of the videos alone.
    """
    seeds, count = replicates.shape
    means = replicates.mean(axis=0)
    if seeds > 1:
        picks = np.random.default_rng(bootstrap.seed).integers(seeds, size=(count, seeds))
        drawn = replicates[picks, np.arange(count)[:, None]].mean(axis=1)
        upper = (1 + bootstrap.confidence) / 2
        widened = math.sqrt(seeds / (seeds - 1)) * t.ppf(upper, seeds - 1) / norm.ppf(upper)
        means = means + widened * (drawn - means)
    outside = 50 * (1 - bootstrap.confidence)
    low, high = np.nanpercentile(means, [outside, 100 - outside])
    return Interval(float(low), float(high))


def verdict(change: Interval, seeds: int) -> str:
    """Whether a change can be told from noise: its interval leaves out zero."""
    if seeds == 1:
        return "one seed"
    return "outside" if change.low > 0 or change.high < 0 else "within"
