"""The Feature Aggregated Bi-S6 block: parallel causal convolutions and selective scans in both directions.

Legend: B batch, T steps of the sequence, C = `channels` of the block, D inner channels, N states, K kernels.
Layout is (B, T, C): projections and scan want the channels innermost.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdfa.models.official_backward import projections
from rdfa.ops.selective_scan import selective_scan
from rdfa.schema import S6, Scan


def causal_convolution(x: Tensor, weight: Tensor, bias: Tensor, reverse: bool = False) -> Tensor:
    """Depthwise convolution that sees the present and the past, or with `reverse` the present and the future.

    forward  y[t] = bias + sum_j weight[:, j] * x[t - (k - 1) + j]
    reverse  y[t] = bias + sum_j weight[:, j] * x[t + (k - 1) - j]

    so that `reverse` equals flipping, convolving and flipping back. Steps outside count as zero.

    Args:
        x: (B, T, D).  weight: (D, k).  bias: (D,).

    Returns:
        (B, T, D).
    """
    steps, width = x.shape[1], weight.shape[1]
    kernel = weight.flip(1) if reverse else weight
    # As an image of height 1 in channels-last memory, the layout that needs no copy.
    image = x.transpose(1, 2).unsqueeze(2)
    padded = F.conv2d(image, kernel[:, None, None, :], bias, padding=(0, width - 1), groups=x.shape[2])
    start = width - 1 if reverse else 0
    return padded[:, :, 0, start : start + steps].transpose(1, 2)


class FABiS6(nn.Module):
    """Feature Aggregated Bi-S6 (paper section 3; released code `mamba_new.py`).

    Both directions share every weight. `params.aggregate` says how the K kernels come together:

    sum_maps       u = sum_k SiLU(conv_k(x)); one scan per direction             (paper's text)
    sum_outputs    one scan per kernel and direction, outputs summed
    concatenate    one scan per kernel and direction, outputs side by side       (released code)

    With `params.share_bc` the maps of later kernels are read with the first kernel's B and C (released code).
    """

    def __init__(self, channels: int, kernels: Sequence[int], params: S6) -> None:
        super().__init__()
        self.params = params
        self.kernels = tuple(kernels)
        inner = params.expand * channels
        self.inner, self.rank = inner, math.ceil(channels / 16)
        parts = len(self.kernels) if params.aggregate == "concatenate" else 1
        self.in_proj = nn.Linear(channels, 4 * inner, bias=False)
        self.conv_weights = nn.ParameterList(nn.Parameter(conv_weight(inner, width)) for width in self.kernels)
        self.conv_biases = nn.ParameterList(nn.Parameter(torch.zeros(inner)) for _ in self.kernels)
        self.x_proj = nn.Linear(inner, self.rank + 2 * params.state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner, bias=False)
        self.dt_bias = nn.Parameter(dt_bias(inner, params))
        self.A_log = nn.Parameter(torch.arange(1.0, params.state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(2 * parts * inner, channels, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix the steps of a sequence.

        Args:
            x: (B, T, C).
            lengths: (B,) valid steps; padding then reaches no valid step, provided that `x` is 0 there.

        Returns:
            (B, T, C).
        """
        forward_x, forward_z, backward_x, backward_z = self.in_proj(x).chunk(4, dim=2)
        outputs = [
            *self._direction(forward_x, forward_z, lengths, reverse=False),
            *self._direction(backward_x, backward_z, lengths, reverse=True),
        ]
        mixed: Tensor = self.out_proj(torch.cat(outputs, dim=2))
        return mixed

    def _direction(self, x: Tensor, z: Tensor, lengths: Tensor | None, reverse: bool) -> list[Tensor]:
        """The scans of one direction: a list of (B, T, D), one per part that is put side by side."""
        if self.params.gradients == "official":
            return self._official_direction(x, z, lengths, reverse)
        maps = [
            F.silu(causal_convolution(x, weight, bias, reverse))
            for weight, bias in zip(self.conv_weights, self.conv_biases, strict=True)
        ]
        if self.params.aggregate == "sum_maps":
            maps = [torch.stack(maps).sum(0) if len(maps) > 1 else maps[0]]
        outputs: list[Tensor] = []
        shared: tuple[Tensor, Tensor] | None = None
        for u in maps:
            step, b, c = self.x_proj(u).split([self.rank, self.params.state, self.params.state], dim=2)
            if self.params.share_bc:
                shared = shared or (b, c)
                b, c = shared
            outputs.append(self._scan(u, self.dt_proj(step), b, c, z, lengths, reverse))
        if self.params.aggregate == "sum_outputs":
            return [torch.stack(outputs).sum(0)]
        return outputs

    def _official_direction(self, x: Tensor, z: Tensor, lengths: Tensor | None, reverse: bool) -> list[Tensor]:
        """The same outputs with the gradients of the released code: only the last kernel passes any to x and z."""
        sources = [*[(x.detach(), z.detach())] * (len(self.kernels) - 1), (x, z)]
        maps = [
            F.silu(causal_convolution(source, weight.detach(), bias.detach(), reverse))
            for (source, _), weight, bias in zip(sources, self.conv_weights, self.conv_biases, strict=True)
        ]
        read = projections(maps, self.x_proj.weight, self.dt_proj.weight)
        return [
            self._scan(u, delta, read.b, read.c, gate, lengths, reverse)
            for u, delta, (_, gate) in zip(read.maps, read.deltas, sources, strict=True)
        ]

    def _scan(
        self, u: Tensor, delta: Tensor, b: Tensor, c: Tensor, z: Tensor, lengths: Tensor | None, reverse: bool
    ) -> Tensor:
        return gated_scan(u, delta, self.A_log, b, c, self.D, z, self.dt_bias, lengths, reverse)


def gated_scan(
    u: Tensor,
    delta: Tensor,
    A_log: Tensor,
    b: Tensor,
    c: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    lengths: Tensor | None,
    reverse: bool,
) -> Tensor:
    """The selective scan as Mamba's blocks call it, in the layout (B, T, D): A = -exp(A_log), softplus, gate z."""
    y = selective_scan(
        u.transpose(1, 2),
        delta.transpose(1, 2),
        -torch.exp(A_log),
        b.transpose(1, 2),
        c.transpose(1, 2),
        D,
        z.transpose(1, 2),
        dt_bias,
        delta_softplus=True,
        reverse=reverse,
        lengths=lengths,
    )
    return y.transpose(1, 2)


def conv_weight(channels: int, width: int) -> Tensor:
    """Initial depthwise kernels (channels, width), as torch's Conv1d draws them."""
    return torch.empty(channels, width).uniform_(-(width**-0.5), width**-0.5)


def dt_bias(inner: int, params: Scan) -> Tensor:
    """Bias (D,) whose softplus, the initial step size, is log-uniform in [dt_min, dt_max] (Mamba's initialisation)."""
    low, high = math.log(params.dt_min), math.log(params.dt_max)
    dt = torch.exp(torch.rand(inner) * (high - low) + low).clamp(min=params.dt_floor)
    return dt + torch.log(-torch.expm1(-dt))
