"""Measures the shape of a data set's annotations: what the sample source draws from.

`measure` is all there is to call; `params/datasets/*.yaml` hold what it found (`scales.sample.source.statistics`), and
a test measures the published files again.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdfa.data.annotations import Annotations
from rdfa.schema import Statistics

QUANTILES = 11
"""0, 10, ..., 100 %."""
DIGITS = 3
"""Significant digits that are kept."""


def measure(
    annotations: Annotations, subset: str, origin: str, durations: Literal["seconds", "coverage"] = "seconds"
) -> Statistics:
    """The statistics of one subset; only videos that have instances count.

    Each table has the quantiles 0, 10, ..., 90 % as they are. Its last value is not the maximum, a single outlier that
    would weigh as much as a tenth of the data when the table is interpolated, but the end of a tail that gives the
    interpolated table the mean of the data (at most the maximum).

    Args:
        origin: what to write down about where the annotations come from.
        durations: whether instances are described in seconds or as a share of their video.

    Raises:
        RdfaError: no such subset.
    """
    videos = [video for video in annotations.subset(subset).videos if video.labels]
    lengths = np.concatenate([video.segments[:, 1] - video.segments[:, 0] for video in videos])
    of_video = np.repeat([video.duration for video in videos], [len(video.labels) for video in videos])
    labels = [label for video in videos for label in video.labels]
    overlapping = np.concatenate([_overlaps(video.segments) for video in videos])
    return Statistics(
        origin=origin,
        video_seconds=_table([video.duration for video in videos]),
        instances_per_video=_table([len(video.labels) for video in videos]),
        instance_seconds=_table(lengths) if durations == "seconds" else None,
        instance_coverage=_table(np.minimum(lengths / of_video, 1.0)) if durations == "coverage" else None,
        class_weights=_table([labels.count(name) for name in set(labels)]),
        classes_per_video=_table([len(set(video.labels)) for video in videos]),
        overlapping=_rounded(overlapping.mean()),
    )


def _overlaps(segments: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the segments (M, 2) share more than a boundary with another one, (M,)."""
    start, end = segments[:, 0], segments[:, 1]
    shared = np.minimum(end[:, None], end) - np.maximum(start[:, None], start)
    np.fill_diagonal(shared, 0)
    return np.asarray((shared > 1e-9).any(axis=1))


def _table(values: ArrayLike) -> tuple[float, ...]:
    data = np.asarray(values, dtype=np.float64)
    table = np.quantile(data, np.linspace(0, 1, QUANTILES))
    tail = 2 * ((QUANTILES - 1) * data.mean() - table[1:-1].sum()) - table[0]  # gives the trapezoids data's mean
    table[-1] = np.clip(tail, table[-2], table[-1])
    return tuple(_rounded(value) for value in table)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
