"""Neck and heads: the pyramid's levels to class logits and boundary offsets, weights shared over levels."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdfa.schema import Heads


class Neck(nn.Module):
    """A LayerNorm per level (released code `FPNIdentity`)."""

    def __init__(self, channels: int, levels: int, masked: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(levels))
        self.masked = masked

    def forward(self, levels: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """Levels (B, T_l, C) to (B, C, T_l), the layout of the heads' convolutions.

        Unless `masked`, padded steps keep the normalisation's bias, which the heads' kernels then see.
        """
        normed = [norm(x) for norm, x in zip(self.norms, levels, strict=True)]
        if self.masked:
            normed = [x * mask.unsqueeze(2) for x, mask in zip(normed, masks, strict=True)]
        return [x.transpose(1, 2) for x in normed]


class Tower(nn.Module):
    """Hidden convolutions with LayerNorm and ReLU, then one convolution to the output channels."""

    def __init__(self, channels: int, outputs: int, params: Heads, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        width, half = params.kernel, params.kernel // 2
        inputs = [channels] + [params.width] * (params.layers - 1)
        self.hidden = nn.ModuleList(
            nn.Conv1d(before, params.width, width, padding=half, bias=False) for before in inputs[:-1]
        )
        self.norms = nn.ModuleList(nn.LayerNorm(params.width) for _ in self.hidden)
        self.output = nn.Conv1d(inputs[-1], outputs, width, padding=half)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The convolutions draw their weights themselves; the output starts without a bias."""
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T), (B, T) bool to (B, T, outputs), zero in padded steps."""
        valid = mask.unsqueeze(1).to(x.dtype)
        for conv, norm in zip(self.hidden, self.norms, strict=True):
            x = F.relu(norm((conv(x) * valid).transpose(1, 2))).transpose(1, 2)
            if self.masked:
                x = x * valid
        y: Tensor = (self.output(x) * valid).transpose(1, 2)
        return y


class ClassHead(nn.Module):
    """Class logits; the last bias starts at the focal loss's prior probability."""

    def __init__(self, channels: int, classes: int, params: Heads, masked: bool) -> None:
        super().__init__()
        self.tower = Tower(channels, classes, params, masked)
        self.prior = params.prior
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Every class starts at the prior probability."""
        nn.init.constant_(self.tower.output.bias, -math.log((1 - self.prior) / self.prior))  # type: ignore[arg-type]

    def forward(self, levels: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """Levels (B, C, T_l) to logits (B, T_l, K)."""
        return [self.tower(x, mask) for x, mask in zip(levels, masks, strict=True)]


class OffsetHead(nn.Module):
    """Distances to start and end in units of the level's stride, with a learned scale per level."""

    def __init__(self, channels: int, levels: int, params: Heads, masked: bool) -> None:
        super().__init__()
        self.tower = Tower(channels, 2, params, masked)
        self.scales = nn.Parameter(torch.ones(levels))

    def forward(self, levels: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """Levels (B, C, T_l) to offsets (B, T_l, 2), not negative."""
        return [F.relu(self.tower(x, mask) * scale) for x, mask, scale in zip(levels, masks, self.scales, strict=True)]
