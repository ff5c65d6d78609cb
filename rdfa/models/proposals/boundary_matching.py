"""Features of segments by linear interpolation in time, and a convolution over them without the samples themselves.

BMN multiplies features (C, T) by a dense matrix (T, N D T), gets N samples of C channels for each of the D T cells, and
sums them by a convolution of N steps into O channels. Both are linear, so that their order can change: the convolution
first turns each of the T steps into O channels for each place n among the samples, a table (N T, O), and a cell is a
weighted sum of some rows of the table, two to a few per sample. The result is the same; the dense matrix and the
samples (N C numbers a cell) are never made, and the multiplications go from D T N C O to T N C O and the gather.

Legend: N samples per segment, K points whose mean is a sample, O output channels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rdfa.ops.sparse_rows import SparseRows
from rdfa.schema import BoundaryMatching, SGAlign

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Points(NamedTuple):
    """Where segments are read: flat arrays, one entry per point."""

    segment: Integers
    """Which segment."""
    sample: Integers
    """Which of its samples."""
    position: Floats
    """Grid steps."""
    weight: Floats
    """In the mean that makes the sample."""


def boundary_points(segments: Floats, params: BoundaryMatching) -> Points:
    """BMN's points: N K at equal distances from the first to the last step of a segment, extended at both sides.

    Args:
        segments: (P, 2) grid steps. Its first step is half a step after the start (public code: cell (d, s) is read
            from s - extend (d + 1) to s + d + extend (d + 1)).
    """
    count, places = len(segments), params.samples * params.points
    extension = params.extend * (segments[:, 1] - segments[:, 0])
    first, last = segments[:, 0] + 0.5 - extension, segments[:, 1] - 0.5 + extension
    fraction = np.arange(places) / max(places - 1, 1)
    position = first[:, None] + (last - first)[:, None] * fraction
    return Points(
        segment=np.repeat(np.arange(count), places),
        sample=np.tile(np.arange(places) // params.points, count),
        position=position.ravel(),
        weight=np.full(count * places, 1 / params.points),
    )


def aligned_points(segments: Floats, samples: int, extend: float, points: int | None) -> Points:
    """SGAlign's points: the extended segment in `samples` equal bins, a bin's mean over the middles of equal parts.

    Args:
        segments: (P, 2) grid steps.
        points: parts of a bin; None: one for every step that the bin spans, rounded up (public code).
    """
    length = segments[:, 1] - segments[:, 0]
    first, whole = segments[:, 0] - extend * length, (1 + 2 * extend) * length
    spanned = np.ceil(whole / samples - 1e-9).astype(np.int64).clip(1)
    per_bin = spanned if points is None else np.full(len(first), points)
    found = []
    for parts in np.unique(per_bin):
        index = np.nonzero(per_bin == parts)[0]
        places = samples * parts
        middle = (np.arange(places) + 0.5) / places
        position = first[index, None] + whole[index, None] * middle
        sample = np.tile(np.arange(places) // parts, len(index))
        weight = np.full(position.size, 1 / parts)
        found.append(Points(np.repeat(index, places), sample, position.ravel(), weight))
    return Points(*(np.concatenate(part) for part in zip(*found, strict=True)))


def alignment_points(segments: Floats, params: BoundaryMatching | SGAlign) -> list[Points]:
    """The points of each source of features: the steps themselves, and with SGAlign also their neighbours' mean."""
    if isinstance(params, BoundaryMatching):
        return [boundary_points(segments, params)]
    own = aligned_points(segments, params.samples, params.extend, None)
    return [own, aligned_points(segments, params.context, params.extend, params.context_points)]


def interpolation(sources: Sequence[Points], samples: Sequence[int], segments: int, steps: int) -> SparseRows:
    """The matrix (P, (N1 + N2 + ...) T) that reads samples between steps, linearly, and 0 beyond the window.

    Args:
        sources: points of each source.  samples: N of each.
        segments: P, those without points included.  steps: T.
    """
    rows, columns, weights = [], [], []
    block = 0
    for points, count in zip(sources, samples, strict=True):
        low = np.floor(points.position).astype(np.int64)
        above = points.position - low
        for step, share in ((low, 1 - above), (low + 1, above)):
            used = (step >= 0) & (step < steps) & (share > 0)
            rows.append(points.segment[used])
            columns.append((block + points.sample[used]) * steps + step[used])
            weights.append((share * points.weight)[used])
        block += count
    parts = (np.concatenate(rows), np.concatenate(columns), np.concatenate(weights))
    return SparseRows(*parts, shape=(segments, block * steps))


def cell_segments(durations: int, steps: int) -> tuple[Integers, Floats]:
    """Flat indices d T + s of the cells inside a window of T steps, and their segments (P, 2)."""
    d, s = np.nonzero(np.arange(durations)[:, None] + np.arange(steps) < steps)
    return d * steps + s, np.stack([s - 0.5, s + d + 0.5], axis=1)


def grid_interpolation(params: BoundaryMatching | SGAlign, durations: int, steps: int) -> SparseRows:
    """`interpolation` for all cells, D T rows; a cell that ends beyond the window has no entries."""
    index, segments = cell_segments(durations, steps)
    sources = [points._replace(segment=index[points.segment]) for points in alignment_points(segments, params)]
    return interpolation(sources, samples_of(params), durations * steps, steps)


def samples_of(params: BoundaryMatching | SGAlign) -> list[int]:
    """N of each source of features."""
    return [params.samples] if isinstance(params, BoundaryMatching) else [params.samples, params.context]


class SampledConvolution(nn.Module):
    """A convolution over all samples of each segment (BMN's 3-D convolution; G-TAD's first on its aligned map)."""

    def __init__(self, channels: int, outputs: int, samples: Sequence[int], rows: SparseRows) -> None:
        super().__init__()
        self.rows = rows
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(count, outputs, channels)) for count in samples)
        self.bias = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As PyTorch's convolutions: uniform up to one over the root of what an output sums."""
        reach = 1 / math.sqrt(sum(weight.shape[0] * weight.shape[2] for weight in self.weights))
        for parameter in (*self.weights, self.bias):
            nn.init.uniform_(parameter, -reach, reach)

    def forward(self, *sources: Tensor) -> Tensor:
        """Features (B, C, T) of each source to (P, B, O): rows first, as the next linear layer likes them."""
        tables = [_table(x, weight) for x, weight in zip(sources, self.weights, strict=True)]
        batch, outputs = sources[0].shape[0], len(self.bias)
        summed: Tensor = self.rows(torch.cat(tables)).unflatten(1, (batch, outputs))
        return summed + self.bias


def _table(x: Tensor, weight: Tensor) -> Tensor:
    """Every step through the weight of every place: (B, C, T) and (N, O, C) to (N T, B O)."""
    batch, channels, steps = x.shape
    flat = x.permute(2, 0, 1).reshape(steps * batch, channels)
    mapped = flat @ weight.flatten(0, 1).T  # (T B, N O)
    table = mapped.view(steps, batch, weight.shape[0], weight.shape[1]).permute(2, 0, 1, 3)
    return table.reshape(weight.shape[0] * steps, batch * weight.shape[1])
