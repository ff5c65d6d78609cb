"""Where the segments are: the cells of the map, those that a sparse sampling keeps, and continuous ones.

A segment is (start, end) in grid steps, of which one holds what is half a step around it. A window of V valid steps
reaches from -0.5 to V - 0.5.
"""

import math

import torch
from torch import Tensor

from rdfa.schema import Instances, Sampling


def grid_segments(durations: int, steps: int) -> Tensor:
    """The segments of all cells, (D, T, 2) float32; those that end beyond the window too."""
    first = torch.arange(steps, dtype=torch.float32).expand(durations, steps) - 0.5
    return torch.stack([first, first + torch.arange(1, durations + 1)[:, None]], dim=2)


def inside_cells(lengths: Tensor, durations: int, steps: int) -> Tensor:
    """Cells that end within the valid part: lengths (B,) of the videos to (B, D, T) bool."""
    last = torch.arange(durations, device=lengths.device)[:, None] + torch.arange(steps, device=lengths.device)
    return last < lengths[:, None, None]


def kept_cells(sampling: Sampling, durations: int, steps: int) -> Tensor:
    """Cells that the sampling keeps, (D, T) bool: 2D-TAN's sparse grids as RCL's supplement names them.

    Where the density is a half to the power l, every 2^l-th start stays. The duration of a cell counts as a share of D.
    """
    share = torch.arange(1, durations + 1) / durations
    if sampling.kind == "sparse_half":
        power = (share > 0.5).long()
    elif sampling.kind == "sparse_power":
        power = torch.floor(share / 0.2 + 1e-6).long()  # 0.6 / 0.2 is below 3 in binary
    else:
        power = torch.zeros(durations, dtype=torch.long)
    return torch.arange(steps) % 2 ** power[:, None] == 0


def drawn_segments(lengths: Tensor, durations: int, count: int, share: tuple[int, int] = (0, 1)) -> Tensor:
    """Random segments inside the valid part of each video: log-duration uniform from 1 to D steps, then the centre.

    Args:
        lengths: (B,) valid steps.
        share: which part of a batch these videos are, and of how many equal parts: each part draws for all.

    Returns:
        (B, count, 2) float32.
    """
    part, parts = share
    videos = len(lengths)
    drawn = torch.rand(parts * videos, count, 2, device=lengths.device)[part * videos : (part + 1) * videos]
    length = lengths[:, None].clamp(min=1)
    longest = length.clamp(max=durations).to(torch.float32)
    duration = torch.exp(drawn[..., 0] * torch.log(longest))
    start = drawn[..., 1] * (length - duration) - 0.5
    return torch.stack([start, start + duration], dim=2)


def instantiated_segments(instances: Instances, durations: int, steps: int) -> Tensor:
    """The segments of inference for `scale_invariant`: (P, 2) float32, inside a window of T steps, short ones first."""
    rows = []
    for index in range(instances.scales):
        duration = durations ** (index / (instances.scales - 1))
        room, spacing = steps - duration, instances.spacing * duration
        count = max(1, math.floor(room / spacing + 1e-6) + 1)
        start = -0.5 + (room - (count - 1) * spacing) / 2 + spacing * torch.arange(count, dtype=torch.float32)
        rows.append(torch.stack([start, start + duration], dim=1))
    return torch.cat(rows)


def inside_segments(segments: Tensor, lengths: Tensor) -> Tensor:
    """Whether segments (B, P, 2) end within the valid part of (B,) steps, to a thousandth of a step: (B, P) bool."""
    return segments[..., 1] <= lengths[:, None] - 0.5 + 1e-3


def nearest_cells(segments: Tensor, lengths: Tensor, durations: int, steps: int) -> tuple[Tensor, Tensor]:
    """The cell nearest to each segment, first in duration, then in centre, among those inside the valid part.

    Args:
        segments: (B, P, 2).  lengths: (B,).

    Returns:
        Flat index d T + s of the cell, (B, P) int64, and (B, P, 2) float: centre and duration relative to the cell's.
    """
    duration, centre = segments[..., 1] - segments[..., 0], segments.mean(2)
    last = lengths[:, None].clamp(min=1) - 1
    d = torch.minimum(torch.round(duration - 1).long().clamp(0, durations - 1), last)
    s = torch.minimum(torch.round(centre - d / 2).long().clamp(min=0), last - d)
    relative = torch.stack([centre - (s + d / 2), duration - (d + 1)], dim=2)
    return d * steps + s, relative
