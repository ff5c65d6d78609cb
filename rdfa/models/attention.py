"""ActionFormer's Transformer block: attention within a sliding window, then two linear layers.

Source: Zhang et al. 2022, "ActionFormer" (arXiv 2202.07925); github.com/happyharrycn/actionformer_release,
libs/modeling/blocks.py, classes LocalMaskedMHCA and TransformerBlock. Ours: max-pooling after the block makes the
coarser level, as for every kind of block; there, convolutions with stride 2 before the attention do.

Legend: B batch, T steps, C channels, H heads, E = C / H, w window, h = (w - 1) / 2 steps to each side.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdfa.schema import Attention


def windowed_attention(query: Tensor, key: Tensor, value: Tensor, reach: int, lengths: Tensor | None = None) -> Tensor:
    """Softmax attention of each step to the valid ones at most `reach` = h steps away; memory and time linear in T.

    The steps are cut into runs of 2 h queries, each with the 4 h keys that one of them can see; what a query cannot
    see among these is masked. A padded query sees itself alone (a softmax over nothing is not a number).

    Args:
        query, key, value: (B, H, T, E).
        lengths: (B,) valid steps, all of them if None.

    Returns:
        (B, H, T, E).
    """
    steps, size = query.shape[2:]
    run = 2 * reach
    runs = -(-steps // run)
    after = runs * run - steps
    queries = F.pad(query, (0, 0, 0, after)).reshape(*query.shape[:2], runs, run, size)
    keys, values = (_overlapping(x, reach, after) for x in (key, value))
    scores = queries @ keys.transpose(3, 4) / math.sqrt(size)
    allowed = _allowed(steps, reach, runs, lengths, query.device)
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(4)
    read: Tensor = (weights @ values).flatten(2, 3)[:, :, :steps]
    return read


def _overlapping(x: Tensor, reach: int, after: int) -> Tensor:
    """Steps (B, H, T, E) to runs that overlap by half, (B, H, runs, 4 h, E), each from h steps before its queries."""
    return F.pad(x, (0, 0, reach, reach + after)).unfold(2, 4 * reach, 2 * reach).transpose(3, 4)


def _allowed(steps: int, reach: int, runs: int, lengths: Tensor | None, device: torch.device) -> Tensor:
    """Who sees whom: bool (B or 1, 1, runs, 2 h queries, 4 h keys)."""
    first = torch.arange(runs, device=device)[:, None] * 2 * reach
    queries = (first + torch.arange(2 * reach, device=device))[:, :, None]
    keys = (first - reach + torch.arange(4 * reach, device=device))[:, None, :]
    ends = torch.full((1,), steps, device=device) if lengths is None else lengths
    exists = (keys >= 0) & (keys < ends[:, None, None, None])
    return (((queries - keys).abs() <= reach) & exists | (queries == keys))[:, None]


class Linear(nn.Linear):
    """A linear layer whose bias starts at 0, as in ActionFormer's backbone."""

    def reset_parameters(self) -> None:
        """Draw the weights, not the bias."""
        super().reset_parameters()
        nn.init.zeros_(self.bias)


class Reader(nn.Module):
    """Queries, keys or values: depthwise convolution, normalisation, projection."""

    def __init__(self, channels: int, kernel: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.conv = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.norm = nn.LayerNorm(channels)
        self.project = Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, H, T, E)."""
        read: Tensor = self.project(self.norm(self.conv(x.transpose(1, 2)).transpose(1, 2)))
        return read.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class WindowedAttention(nn.Module):
    """Multi-head attention within a window; the convolutions before it tell positions apart."""

    def __init__(self, channels: int, kernel: int, params: Attention) -> None:
        super().__init__()
        self.reach = params.window // 2
        self.query, self.key, self.value = (Reader(channels, kernel, params.heads) for _ in range(3))
        self.project = Linear(channels, channels)
        self.dropout = nn.Dropout(params.dropout)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix the steps of a sequence: (B, T, C) to (B, T, C); see `mixers` for `lengths`."""
        read = windowed_attention(self.query(x), self.key(x), self.value(x), self.reach, lengths)
        mixed: Tensor = self.dropout(self.project(read.transpose(1, 2).flatten(2)))
        return mixed


class FeedForward(nn.Module):
    """Two linear layers with GELU between, for each step by itself."""

    def __init__(self, channels: int, params: Attention) -> None:
        super().__init__()
        inner = params.hidden * channels
        self.first, self.second = Linear(channels, inner), Linear(inner, channels)
        self.dropout = nn.Dropout(params.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        y: Tensor = self.dropout(self.second(self.dropout(F.gelu(self.first(x)))))
        return y


def sinusoid(x: Tensor) -> Tensor:
    """Positions for an embedding x (B, T, C): (T, C), sine and cosine in turn, divided by sqrt(C) as ActionFormer's."""
    steps, channels = x.shape[1:]
    even = torch.arange(0, channels, 2, device=x.device)
    angle = torch.arange(steps, device=x.device)[:, None] / 10000 ** (even / channels)
    waves = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :channels]
    return waves.to(x.dtype) / math.sqrt(channels)
