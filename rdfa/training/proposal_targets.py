"""What the boundaries and the segments of a proposal map should say.

A step covers half of a grid step on each side. Source: BMN's public codes (OpenTAD,
opentad/models/dense_heads/tem_head.py and opentad/models/roi_heads/proposal_head/pem_head.py).
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from rdfa.schema import ProposalLoss

_PAIRS_AT_ONCE = 1 << 26
"""Bounds the memory of a window with very many segments."""


class ProposalTargets(NamedTuple):
    """Targets of a batch; those of segments follow from the annotated ones by `best_tiou`."""

    start: Tensor
    """(B, T) share of a step that is in the region around a start."""
    end: Tensor
    """(B, T) the same of ends."""
    segments: Tensor
    """(B, M, 2) annotated segments in grid steps; of no length where a window has fewer than M."""

    def to(self, device: torch.device) -> "ProposalTargets":
        """The same on another device."""
        return ProposalTargets(*(part.to(device) for part in self))


def proposal_targets(segments: Sequence[Tensor], steps: int, params: ProposalLoss) -> ProposalTargets:
    """Targets of a batch.

    Args:
        segments: of each window, (M, 2) grid steps.
        steps: T.
    """
    most = max((len(each) for each in segments), default=0)
    padded = torch.zeros(len(segments), max(most, 1), 2)
    for row, each in enumerate(segments):
        padded[row, : len(each)] = each
    start, end = (
        torch.stack([near_boundaries(each[:, side], steps, params.boundary_width) for each in segments])
        for side in (0, 1)
    )
    return ProposalTargets(start, end, padded)


def near_boundaries(boundaries: Tensor, steps: int, width: float) -> Tensor:
    """Share of each step that is within width / 2 of a boundary: the largest over boundaries (M,), as (T,)."""
    at = torch.arange(steps, dtype=torch.float32)[:, None]
    low = torch.maximum(at - 0.5, boundaries - width / 2)
    high = torch.minimum(at + 0.5, boundaries + width / 2)
    inside = (high - low).clamp(min=0)
    return inside.amax(1) if len(boundaries) else torch.zeros(steps)


def best_tiou(segments: Tensor, annotated: Tensor) -> Tensor:
    """The largest tIoU of each segment with an annotated one: (B, P, 2) and (B, M, 2) to (B, P), 0 to 1."""
    parts = torch.split(annotated, max(1, _PAIRS_AT_ONCE // segments[..., 0].numel()), dim=1)
    return reduce(torch.maximum, (_best_tiou(segments, part) for part in parts))


def _best_tiou(segments: Tensor, annotated: Tensor) -> Tensor:
    first, second = segments[:, :, None], annotated[:, None]
    overlap = torch.minimum(first[..., 1], second[..., 1]) - torch.maximum(first[..., 0], second[..., 0])
    overlap = overlap.clamp(min=0)
    union = (first[..., 1] - first[..., 0]) + (second[..., 1] - second[..., 0]) - overlap
    return (overlap / union).amax(2)
