"""Embedding, recurrent stem and branch: features (B, C, T) to the levels of a pyramid, each (B, T / 2^l, C).

The embedding convolves in (B, C, T); from the stem on, the layout is (B, T, C).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from rdfa.models.attention import FeedForward, sinusoid
from rdfa.models.mixers import mixer
from rdfa.schema import Attention, Model, Stem


class Embedding(nn.Module):
    """Convolutions that bring the features to the backbone's width (released code `EmbeddingModule`)."""

    def __init__(self, dimension: int, params: Model) -> None:
        super().__init__()
        widths = [dimension] + [params.width] * params.embedding_layers
        kernel = params.embedding_kernel
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, kernel, padding=kernel // 2, bias=False) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(params.width) for _ in self.convs)
        self.masked = params.padding == "masked"

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, C_in, T) and (B, T) bool to (B, T, C). Leaky padding keeps ReLU(LayerNorm's bias) in padded steps."""
        x, valid = features, mask.unsqueeze(1).to(features.dtype)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm((conv(x) * valid).transpose(1, 2))).transpose(1, 2)
            if self.masked:
                x = x * valid
        return x.transpose(1, 2)


class AffineDropPath(nn.Module):
    """A learned scale per channel and, in training, a residual path dropped per video (ActionFormer's)."""

    def __init__(self, channels: int, probability: float, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), scale))
        self.probability = probability
        self.share = (0, 1)
        """Which part of a batch x is, and of how many equal parts: each part draws for all, so that the number of
        parts changes no draw."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        if not self.training or self.probability == 0:
            return x * self.scale
        keep = 1 - self.probability
        part, parts = self.share
        drawn = torch.rand(parts * x.shape[0], 1, 1, device=x.device)[part * x.shape[0] : (part + 1) * x.shape[0]]
        kept = torch.floor(keep + drawn) / keep
        return x * (self.scale * kept).to(x.dtype)


class Dual(nn.Module):
    """The Dual structure: a mixer over time, one over the channels that gates it, or one of the two."""

    def __init__(self, structure: str, temporal_kernels: Sequence[int], stem: Stem, params: Model) -> None:
        super().__init__()
        self.masked = params.padding == "masked"
        self.channel_width = stem.channel_width
        self.gate_from_temporal = stem.channel_input == "temporal_output"
        self.norm = nn.LayerNorm(params.width)
        temporal, channel = structure in ("temporal", "dual"), structure in ("channel", "dual")
        self.temporal = mixer(params.width, temporal_kernels, params.block) if temporal else None
        self.channel = mixer(stem.channel_width, stem.channel_kernels, params.block) if channel else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) and (B, T) bool to (B, T, C), zero in padded steps."""
        valid = mask.unsqueeze(2).to(x.dtype)
        lengths = mask.sum(1) if self.masked else None
        y: Tensor = self.norm(x)
        if self.masked:
            y = y * valid
        if self.temporal is not None:
            y = self.temporal(y, lengths)
        y = y * valid
        if self.channel is not None:
            y = y * self._gate(y if self.gate_from_temporal else x, lengths)
        return y

    def _gate(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """One factor in (0, 1) per channel: (B, T, C) to (B, 1, C). The channels are the scanned sequence."""
        assert self.channel is not None
        pooled = _pool_time(x, self.channel_width, lengths)
        return torch.sigmoid(self.channel(pooled).mean(2)).unsqueeze(1)


def _pool_time(x: Tensor, width: int, lengths: Tensor | None) -> Tensor:
    """Average time into `width` bins: (B, T, C) to (B, C, width); only valid steps count if `lengths` is given."""
    channels_first = x.transpose(1, 2)
    if lengths is None:
        return F.adaptive_avg_pool1d(channels_first, width)
    if width == 1:
        return channels_first.sum(2, keepdim=True) / lengths.clamp(min=1)[:, None, None]
    parts = zip(channels_first, lengths.clamp(min=1).tolist(), strict=True)
    return torch.stack([F.adaptive_avg_pool1d(video[:, :length], width) for video, length in parts])


class FeedForwardPath(nn.Module):
    """The second residual path of a Transformer block, with a normalisation and a scale of its own."""

    def __init__(self, params: Model, block: Attention) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(params.width)
        self.layers = FeedForward(params.width, block)
        self.path = AffineDropPath(params.width, params.drop_path, params.path_scale)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) and (B, T) bool to (B, T, C)."""
        y: Tensor = x + self.path(self.layers(self.norm(x)) * mask.unsqueeze(2))
        return y


def _second_path(params: Model) -> FeedForwardPath | None:
    """What follows a block's mixer: nothing, except in a Transformer."""
    return FeedForwardPath(params, params.block) if isinstance(params.block, Attention) else None


class StemBlock(nn.Module):
    """One Dual block that is applied `recurrence` times with the same weights."""

    def __init__(self, params: Model) -> None:
        super().__init__()
        stem = params.stem
        self.recurrence, self.from_input = stem.recurrence, stem.residual == "input"
        self.dual = Dual(stem.dual, stem.temporal_kernels, stem, params)
        self.path = AffineDropPath(params.width, params.drop_path, params.path_scale)
        self.second = _second_path(params)
        self.checkpointed = False
        """Keep only the iterates X_i for the backward pass (Runtime.checkpoint_recurrence)."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """X_{i+1} = path(Dual(X_i)) + X_0, or + X_i with `residual: previous`; (B, T, C) to (B, T, C)."""
        first = x
        for _ in range(self.recurrence):
            added = first if self.from_input else x
            if self.checkpointed and torch.is_grad_enabled():
                x = checkpoint(self._iteration, x, added, mask, use_reentrant=False)
            else:
                x = self._iteration(x, added, mask)
        return x

    def _iteration(self, x: Tensor, added: Tensor, mask: Tensor) -> Tensor:
        y: Tensor = self.path(self.dual(x, mask)) + added
        return y if self.second is None else self.second(y, mask)


class BranchBlock(nn.Module):
    """A Dual block with residual, then max-pooling to half the length."""

    def __init__(self, params: Model) -> None:
        super().__init__()
        self.dual = Dual(params.branch.dual, params.branch.kernels, params.stem, params)
        self.path = AffineDropPath(params.width, params.drop_path, params.path_scale)
        self.second = _second_path(params)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C), before pooling."""
        y: Tensor = self.path(self.dual(x, mask)) + x
        return y if self.second is None else self.second(y, mask)


def halve(x: Tensor, mask: Tensor, masked: bool) -> tuple[Tensor, Tensor]:
    """Max-pool (kernel 3, stride 2, padding 1): (B, T, C) to (B, T / 2, C), and every second mask entry.

    With `masked`, padded steps do not take part; otherwise they do, with the value they have (released code).
    """
    if masked:
        x = x.masked_fill(~mask.unsqueeze(2), -torch.inf)
    pooled = F.max_pool1d(x.transpose(1, 2), 3, stride=2, padding=1).transpose(1, 2)
    half = mask[:, ::2]
    return pooled.masked_fill(~half.unsqueeze(2), 0.0) if masked else pooled * half.unsqueeze(2), half


class Backbone(nn.Module):
    """Embedding, stem, and one branch block before each coarser level."""

    def __init__(self, dimension: int, params: Model) -> None:
        super().__init__()
        self.masked = params.padding == "masked"
        self.embedding = Embedding(dimension, params)
        self.positions = isinstance(params.block, Attention) and params.block.positions
        blocks = params.stem.blocks if params.stem.dual != "none" else 0
        self.stem = nn.ModuleList(StemBlock(params) for _ in range(blocks))
        with_block = params.branch.dual != "none"
        coarser = len(params.regression_ranges) - 1
        self.branch = nn.ModuleList(BranchBlock(params) if with_block else PoolOnly() for _ in range(coarser))

    def forward(self, features: Tensor, mask: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Features (B, C_in, T), mask (B, T) bool to levels (B, T / 2^l, C) and their masks."""
        x = self.embedding(features, mask)
        if self.positions:
            x = x + sinusoid(x) * mask.unsqueeze(2)
        for stem in self.stem:
            x = stem(x, mask)
        levels, masks = [x], [mask]
        for block in self.branch:
            x, mask = halve(block(x, mask), mask, self.masked)
            levels.append(x)
            masks.append(mask)
        return levels, masks


class PoolOnly(nn.Module):
    """Stands where a branch has no block: max-pooling alone makes the coarser level (TemporalMaxer's idea)."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x
