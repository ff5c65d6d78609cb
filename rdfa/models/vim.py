"""ActionMamba's ViM block: bidirectional Mamba whose directions share the projections in and out, and nothing else.

Source: github.com/OpenGVLab/video-mamba-suite, mamba/mamba_ssm/modules/mamba_simple.py with bimamba_type "v2" (after
Zhu et al. 2024, "Vision Mamba", arXiv 2401.09417). Layout and legend as in `s6`: B, T, C; D inner channels, N states.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdfa.models.s6 import causal_convolution, conv_weight, dt_bias, gated_scan
from rdfa.schema import ViM


class Direction(nn.Module):
    """Convolution, step size, maps and scan of one direction."""

    def __init__(self, inner: int, rank: int, kernel: int, params: ViM) -> None:
        super().__init__()
        self.rank, self.state = rank, params.state
        self.conv_weight = nn.Parameter(conv_weight(inner, kernel))
        self.conv_bias = nn.Parameter(torch.zeros(inner))
        self.x_proj = nn.Linear(inner, rank + 2 * params.state, bias=False)
        self.dt_proj = nn.Linear(rank, inner, bias=False)
        self.dt_bias = nn.Parameter(dt_bias(inner, params))
        self.A_log = nn.Parameter(torch.arange(1.0, params.state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)

    def forward(self, x: Tensor, z: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
        """Input x and gate z (B, T, D) to (B, T, D)."""
        u = F.silu(causal_convolution(x, self.conv_weight, self.conv_bias, reverse))
        step, b, c = self.x_proj(u).split([self.rank, self.state, self.state], dim=2)
        delta = self.dt_proj(step)
        return gated_scan(u, delta, self.A_log, b, c, self.D, z, self.dt_bias, lengths, reverse)


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
