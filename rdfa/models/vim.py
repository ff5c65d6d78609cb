"""ActionMamba's ViM block: bidirectional Mamba whose directions share the projections in and out, and nothing else.

Source: github.com/OpenGVLab/video-mamba-suite, mamba/mamba_ssm/modules/mamba_simple.py with bimamba_type "v2" (after
Zhu et al. 2024, "Vision Mamba", arXiv 2401.09417). Layout and legend as in `s6`: B, T, C; D inner channels, N states.
"""

import math

import torch
from torch import Tensor, nn

from rdfa.models.s6 import draw_kernel, draw_step, scan_of
from rdfa.ops.causal_convolution import causal_maps
from rdfa.ops.selective_scan import selective_scans
from rdfa.schema import ViM


class Direction(nn.Module):
    """Convolution, step size, maps and scan of one direction."""

    def __init__(self, inner: int, rank: int, kernel: int, params: ViM) -> None:
        super().__init__()
        self.rank, self.params = rank, params
        self.conv_weight = nn.Parameter(torch.empty(inner, kernel))
        self.conv_bias = nn.Parameter(torch.zeros(inner))
        self.x_proj = nn.Linear(inner, rank + 2 * params.state, bias=False)
        self.dt_proj = nn.Linear(rank, inner, bias=False)
        self.dt_bias = nn.Parameter(torch.empty(inner))
        self.A_log = nn.Parameter(torch.arange(1.0, params.state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw what the projections do not draw themselves, as in `s6`."""
        draw_step(self.dt_proj, self.dt_bias, self.params)
        draw_kernel(self.conv_weight)

    def forward(self, x: Tensor, z: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
        """Input x and gate z (B, T, D) to (B, T, D)."""
        (u,) = causal_maps(x, [self.conv_weight], [self.conv_bias], reverse)
        step, b, c = self.x_proj(u).split([self.rank, self.params.state, self.params.state], dim=2)
        scan = scan_of(u, self.dt_proj(step), b, c, z, reverse)
        return selective_scans([scan], -torch.exp(self.A_log), self.D, self.dt_bias, True, lengths)[0].mT


class BidirectionalMamba(nn.Module):
    """out_proj(forward(x, z) + backward(x, z)) with x, z = in_proj(input)."""

    def __init__(self, channels: int, kernel: int, params: ViM) -> None:
        super().__init__()
        inner, rank = params.expand * channels, math.ceil(channels / 16)
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.ahead = Direction(inner, rank, kernel, params)
        self.back = Direction(inner, rank, kernel, params)
        self.out_proj = nn.Linear(inner, channels, bias=False)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix the steps of a sequence: (B, T, C) to (B, T, C); see `mixers` for `lengths`."""
        u, z = self.in_proj(x).chunk(2, dim=2)
        both = self.ahead(u, z, lengths, reverse=False) + self.back(u, z, lengths, reverse=True)
        mixed: Tensor = self.out_proj(both)
        return mixed
