"""Geometry of the temporal feature pyramid: where its points are and what they may predict."""

from collections.abc import Sequence

import torch
from torch import Tensor


def pyramid_points(length: int, ranges: Sequence[tuple[float, float]]) -> list[Tensor]:
    """The points of every level over a sequence of `length` grid steps.

    Args:
        length: steps of the finest level, a multiple of the coarsest stride.
        ranges: per level, the distances to a boundary that it predicts, in grid steps.

    Returns:
        Per level l a tensor (T / 2^l, 4): position in grid steps, lower and upper end of the regression range in
        grid steps, stride in grid steps (2^l).
    """
    levels = []
    for level, (low, high) in enumerate(ranges):
        stride = 2**level
        position = torch.arange(0, length, stride, dtype=torch.float32)
        rest = torch.tensor([low, high, float(stride)]).expand(len(position), 3)
        levels.append(torch.cat([position[:, None], rest], dim=1))
    return levels
