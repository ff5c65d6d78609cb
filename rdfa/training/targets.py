"""Label assignment: which pyramid points are positive, for which class, and how far away the boundaries are."""

import torch
from torch import Tensor

_PAIRS_AT_ONCE = 1 << 24
"""Bounds the memory of a window with very many segments."""
_TIE = 1e-3
"""Segments within this length (grid steps) of the shortest one label a point together, as in ActionFormer."""


def assign(points: Tensor, segments: Tensor, labels: Tensor, classes: int, radius: float) -> tuple[Tensor, Tensor]:
    """Targets of one window (ActionFormer's and the released code's `label_points_single_video`).

    A point is positive for a segment if it lies within `radius` strides of the segment's centre and inside the
    segment (`radius` 0: anywhere inside), and if the larger of its distances to the boundaries is in its regression
    range. Of several segments the shortest wins; ties label it with several classes.

    Args:
        points: (P, 4) position, range low, range high, stride (`pyramid_points`, levels concatenated).
        segments: (M, 2) grid steps.  labels: (M,) int64 below `classes`.
        radius: in strides.

    Returns:
        Class targets (P, K) in {0, 1}, and offsets to start and end (P, 2) in strides. Offsets of negative points
        are meaningless.
    """
    if len(segments) == 0:
        return points.new_zeros(len(points), classes), points.new_zeros(len(points), 2)
    parts = torch.split(points, max(1, _PAIRS_AT_ONCE // len(segments)))
    targets, offsets = zip(*(_assign(part, segments, labels, classes, radius) for part in parts), strict=True)
    return torch.cat(targets), torch.cat(offsets)


def _assign(points: Tensor, segments: Tensor, labels: Tensor, classes: int, radius: float) -> tuple[Tensor, Tensor]:
    """The same of some of the points, each of which is compared with every segment."""
    position, low, high, stride = (column[:, None] for column in points.T)
    start, end = segments[:, 0], segments[:, 1]
    offsets = torch.stack([position - start, end - position], dim=2)
    if radius > 0:
        center = 0.5 * (start + end)
        to_left = position - torch.maximum(center - stride * radius, start)
        to_right = torch.minimum(center + stride * radius, end) - position
        inside = torch.minimum(to_left, to_right) > 0
    else:
        inside = offsets.amin(2) > 0
    furthest = offsets.amax(2)
    candidate = inside & (furthest >= low) & (furthest <= high)
    lengths = torch.where(candidate, (end - start).expand(len(points), -1), torch.inf)
    shortest, winner = lengths.min(dim=1)
    labelled = candidate & (lengths <= shortest[:, None] + _TIE)
    class_targets = points.new_zeros(len(points), classes)
    at, of = labelled.nonzero(as_tuple=True)
    class_targets[at, labels[of]] = 1.0
    return class_targets, offsets[torch.arange(len(points)), winner] / stride
