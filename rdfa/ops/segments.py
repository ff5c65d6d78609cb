"""Overlap of temporal segments: tIoU, element by element or all pairs. Numpy; shapes (..., 2) = start, end."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST_UNION = 1e-8
"""A union is never taken as shorter than this, as in OpenTAD: two equal segments of no length have tIoU 0, not NaN."""


def tiou(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Temporal intersection over union of `first` (..., 2) and `second` (..., 2), broadcast against each other.

    Returns:
        (...) in [0, 1]; 0 where both segments have no length.
    """
    overlap = intersection(first, second)
    union = (second[..., 1] - second[..., 0]) + (first[..., 1] - first[..., 0]) - overlap
    return np.asarray(overlap / np.maximum(union, SMALLEST_UNION))


def tiou_matrix(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """tIoU of every segment of `first` (N, 2) with every segment of `second` (M, 2): (N, M)."""
    return tiou(first[:, None, :], second[None, :, :])


def intersection(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Length of the common part of `first` (..., 2) and `second` (..., 2), at least 0: (...)."""
    end = np.minimum(first[..., 1], second[..., 1])
    start = np.maximum(first[..., 0], second[..., 0])
    return np.asarray(np.maximum(end - start, 0))


def overlap_over_hull(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Intersection over the shortest segment that covers both, as the THUMOS'14 kit computes its tIoU.

    Mathematically the tIoU (segments that meet fill their hull), but not to the last digit, which matters where a
    threshold is met exactly.
    """
    overlap = intersection(first, second)
    hull = np.maximum(first[..., 1], second[..., 1]) - np.minimum(first[..., 0], second[..., 0])
    return np.asarray(overlap / np.maximum(hull, SMALLEST_UNION))
