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
from rdfa.ops.causal_convolution import causal_maps
from rdfa.ops.selective_scan import Scan, selective_scans
from rdfa.schema import S6, ViM


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
        self.conv_weights = nn.ParameterList(nn.Parameter(torch.empty(inner, width)) for width in self.kernels)
        self.conv_biases = nn.ParameterList(nn.Parameter(torch.zeros(inner)) for _ in self.kernels)
        self.x_proj = nn.Linear(inner, self.rank + 2 * params.state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner, bias=False)
        self.dt_bias = nn.Parameter(torch.empty(inner))
        self.A_log = nn.Parameter(torch.arange(1.0, params.state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(2 * parts * inner, channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw what the projections do not draw themselves: the step's weights as Mamba, the kernels as Conv1d."""
        draw_step(self.dt_proj, self.dt_bias, self.params)
        for weight in self.conv_weights:  # last, so that other kernels leave the step's weights as they are
            draw_kernel(weight)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix the steps of a sequence.

        Args:
            x: (B, T, C).
            lengths: (B,) valid steps; padding then reaches no valid step, provided that `x` is 0 there.

        Returns:
            (B, T, C).
        """
        # Four products, since the parts of one would have to be gathered again for its backward pass.
        forward_x, forward_z, backward_x, backward_z = (F.linear(x, part) for part in self.in_proj.weight.chunk(4))
        scans = [
            *self._direction(forward_x, forward_z, reverse=False),
            *self._direction(backward_x, backward_z, reverse=True),
        ]
        rates = -torch.exp(self.A_log)
        outputs = [y.mT for y in selective_scans(scans, rates, self.D, self.dt_bias, True, lengths)]
        if self.params.aggregate == "sum_outputs":
            count = len(self.kernels)
            outputs = [torch.stack(outputs[:count]).sum(0), torch.stack(outputs[count:]).sum(0)]
        mixed: Tensor = self.out_proj(torch.cat(outputs, dim=2))
        return mixed

    def _direction(self, x: Tensor, z: Tensor, reverse: bool) -> list[Scan]:
        """The scans of one direction, one per map."""
        if self.params.gradients == "official":
            return self._official_direction(x, z, reverse)
        maps = causal_maps(x, list(self.conv_weights), list(self.conv_biases), reverse)
        if self.params.aggregate == "sum_maps":
            maps = [torch.stack(maps).sum(0) if len(maps) > 1 else maps[0]]
        scans: list[Scan] = []
        shared: tuple[Tensor, Tensor] | None = None
        for u in maps:
            step, b, c = self.x_proj(u).split([self.rank, self.params.state, self.params.state], dim=2)
            if self.params.share_bc:
                shared = shared or (b, c)
                b, c = shared
            scans.append(scan_of(u, self.dt_proj(step), b, c, z, reverse))
        return scans

    def _official_direction(self, x: Tensor, z: Tensor, reverse: bool) -> list[Scan]:
        """The same scans with the gradients of the released code: only the last kernel passes any to x and z."""
        weights, biases = ([value.detach() for value in values] for values in (self.conv_weights, self.conv_biases))
        maps = [
            *causal_maps(x.detach(), weights[:-1], biases[:-1], reverse),
            *causal_maps(x, weights[-1:], biases[-1:], reverse),
        ]
        gates = [*[z.detach()] * (len(maps) - 1), z]
        read = projections(maps, self.x_proj.weight, self.dt_proj.weight)
        return [
            scan_of(u, delta, read.b, read.c, gate, reverse)
            for u, delta, gate in zip(read.maps, read.deltas, gates, strict=True)
        ]


def scan_of(u: Tensor, delta: Tensor, b: Tensor, c: Tensor, z: Tensor, reverse: bool) -> Scan:
    """The scan of a map: (B, T, .) as the (B, ., T) that scans are described in, without copies."""
    return Scan(u.mT, delta.mT, b.mT, c.mT, z.mT, reverse)


def draw_step(dt_proj: nn.Linear, dt_bias: nn.Parameter, params: S6 | ViM) -> None:
    """Draw what makes step sizes (Mamba's initialisation).

    The softplus of the bias (D,), the initial step size, becomes log-uniform in [dt_min, dt_max].
    """
    nn.init.uniform_(dt_proj.weight, -(dt_proj.in_features**-0.5), dt_proj.in_features**-0.5)
    low, high = math.log(params.dt_min), math.log(params.dt_max)
    dt = torch.exp(torch.rand(dt_bias.shape) * (high - low) + low).clamp(min=params.dt_floor)
    dt_bias.data = dt + torch.log(-torch.expm1(-dt))


def draw_kernel(weight: Tensor) -> None:
    """Draw depthwise kernels (D, k) as torch's Conv1d does."""
    nn.init.uniform_(weight, -(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5)
