"""What the metrics share: which ground truth counts, and how detections and annotations refer to the same videos."""

import numpy as np
from numpy.typing import NDArray

from rdfa.data.annotations import Annotations
from rdfa.data.detections import Detections

DUPLICATE_TOLERANCE = 1e-3
"""Seconds within which two bounds are the same; ActionFormer's and OpenTAD's."""


def neither_empty_nor_repeated(
    videos: NDArray[np.int64], segments: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which of the ground-truth segments the ActivityNet-style metrics count: (M,).

    Dropped are those that end at or before their start, and those of a video and class whose bounds are both within
    `DUPLICATE_TOLERANCE` of an earlier one that counts (OpenTAD's `remove_duplicate_annotations`).
    """
    kept = segments[:, 0] < segments[:, 1]
    order = np.lexsort((segments[:, 0], labels, videos))
    # Segments that start together are few; only among them is each compared with those before it. (Twice the
    # tolerance, lest rounding part two that belong together.)
    close = np.diff(segments[order, 0]) <= 2 * DUPLICATE_TOLERANCE
    same = (np.diff(labels[order]) == 0) & (np.diff(videos[order]) == 0)
    for run in np.split(order, np.flatnonzero(~(close & same)) + 1):
        if len(run) > 1:
            _drop_repeated(np.sort(run[kept[run]]), segments, kept)
    return kept


def _drop_repeated(rows: NDArray[np.int64], segments: NDArray[np.float64], kept: NDArray[np.bool_]) -> None:
    """Mark the repeated ones of some rows of one video and class. Each is compared with its neighbours on a grid."""
    earlier: dict[tuple[float, float], list[int]] = {}
    cells = np.floor(segments[rows] / (2 * DUPLICATE_TOLERANCE)).tolist()
    for row, (left, right) in zip(rows.tolist(), cells, strict=True):
        near = (earlier.get((left + i, right + j), ()) for i in (-1, 0, 1) for j in (-1, 0, 1))
        if any((np.abs(segments[row] - segments[other]) <= DUPLICATE_TOLERANCE).all() for own in near for other in own):
            kept[row] = False
        else:
            earlier.setdefault((left, right), []).append(row)


def video_indices(ground_truth: Annotations, detections: Detections) -> NDArray[np.int64]:
    """For each of `detections.videos` its index in `ground_truth.videos`, or -1: (V,), at least one element."""
    index = {video.name: number for number, video in enumerate(ground_truth.videos)}
    return np.array([index.get(name, -1) for name in detections.videos] or [-1], dtype=np.int64)


def name_ranks(names: tuple[str, ...]) -> NDArray[np.int64]:
    """Place of each name in alphabetical order: (V,). Makes ties independent of the order of videos in a file."""
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return ranks
