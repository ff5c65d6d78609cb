"""Sampling over segments: equal in float64 to samples taken and convolved one by one, never as large as they are."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rdfa.models.proposals.boundary_matching import (
    SampledConvolution,
    alignment_points,
    cell_segments,
    grid_interpolation,
    interpolation,
    samples_of,
)
from rdfa.ops.sparse_rows import SparseRows
from rdfa.schema import BoundaryMatching, SGAlign

T, D, C, OUT = 11, 8, 3, 4
MATCHING = BoundaryMatching(kind="boundary_matching", samples=5, points=3, extend=0.5, width=C)
ALIGN = SGAlign(kind="sgalign", samples=4, context=2, context_points=2, extend=0.5)
KINDS = pytest.mark.parametrize("params", [MATCHING, ALIGN], ids=lambda params: params.kind)


def read(x: Tensor, position: float) -> Tensor:
    """Features (C, T) at a position between steps, 0 beyond the first and the last: (C,)."""
    low = math.floor(position)
    value = torch.zeros(len(x), dtype=x.dtype)
    for step, share in ((low, 1 - (position - low)), (low + 1, position - low)):
        if 0 <= step < x.shape[1]:
            value += share * x[:, step]
    return value


def mean_of(x: Tensor, positions: list[float]) -> Tensor:
    return torch.stack([read(x, position) for position in positions]).mean(0)


def matched(x: Tensor, start: float, end: float) -> list[Tensor]:
    """BMN: 5 samples, each the mean of 3 of 15 points from the first step to the last, extended by half the length."""
    first, last = start + 0.5 - (end - start) / 2, end - 0.5 + (end - start) / 2
    points = [first + (last - first) * index / 14 for index in range(15)]
    return [mean_of(x, points[3 * n : 3 * n + 3]) for n in range(5)]


def binned(x: Tensor, start: float, end: float, bins: int, points: int | None) -> list[Tensor]:
    """SGAlign: the extended segment in bins, each the mean over the middles of its parts."""
    first, size = start - (end - start) / 2, 2 * (end - start) / bins
    parts = points or max(1, math.ceil(size - 1e-9))
    return [mean_of(x, [first + size * (n + (i + 0.5) / parts) for i in range(parts)]) for n in range(bins)]


def oracle(
    params: BoundaryMatching | SGAlign, sources: list[Tensor], layer: SampledConvolution, segment: Tensor
) -> Tensor:
    start, end = segment.tolist()
    if isinstance(params, BoundaryMatching):
        samples = [matched(sources[0], start, end)]
    else:
        samples = [binned(sources[0], start, end, 4, None), binned(sources[1], start, end, 2, 2)]
    out = layer.bias.clone()
    for weight, of_source in zip(layer.weights, samples, strict=True):
        for place, sample in zip(weight, of_source, strict=True):
            out = out + place @ sample
    return out


def layer_of(params: BoundaryMatching | SGAlign, rows: SparseRows) -> SampledConvolution:
    torch.manual_seed(0)
    return SampledConvolution(C, OUT, samples_of(params), rows).double()


@KINDS
def test_every_cell_has_the_convolution_of_its_samples(params: BoundaryMatching | SGAlign) -> None:
    layer = layer_of(params, grid_interpolation(params, D, T))
    sources = [torch.randn(2, C, T, dtype=torch.float64) for _ in samples_of(params)]
    found = layer(*sources).unflatten(0, (D, T))
    for d in range(D):
        for s in range(T):
            for video in range(2):
                segment = torch.tensor([s - 0.5, s + d + 0.5])
                expected = oracle(params, [x[video] for x in sources], layer, segment) if s + d < T else layer.bias
                torch.testing.assert_close(found[d, s, video], expected)


@KINDS
def test_any_segment_is_sampled_and_a_cell_s_segment_as_the_cell(params: BoundaryMatching | SGAlign) -> None:
    index, cells = cell_segments(D, T)
    continuous = np.random.default_rng(0).uniform([-0.5, 1], [7, 3.5], (20, 2)).cumsum(1)
    segments = np.concatenate([continuous, cells])
    rows = interpolation(alignment_points(segments, params), samples_of(params), len(segments), T)
    layer = layer_of(params, rows)
    sources = [torch.randn(1, C, T, dtype=torch.float64) for _ in samples_of(params)]
    found = layer(*sources)[:, 0]
    for at, segment in enumerate(torch.from_numpy(continuous)):
        torch.testing.assert_close(found[at], oracle(params, [x[0] for x in sources], layer, segment))
    on_grid = layer_of(params, grid_interpolation(params, D, T))(*sources)[:, 0]
    torch.testing.assert_close(found[len(continuous) :], on_grid[torch.from_numpy(index)])


@KINDS
def test_the_gradients_are_those_of_numerical_differences(params: BoundaryMatching | SGAlign) -> None:
    layer = layer_of(params, grid_interpolation(params, 3, 4))
    sources = [torch.randn(2, C, 4, dtype=torch.float64, requires_grad=True) for _ in samples_of(params)]
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def call(*values: Tensor) -> Tensor:
        given = dict(zip(names, values[len(sources) :], strict=True))
        return torch.func.functional_call(layer, given, values[: len(sources)])

    assert torch.autograd.gradcheck(call, (*sources, *parameters), fast_mode=True)


class Largest(TorchDispatchMode):
    """The most numbers that any tensor made meanwhile has."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, out.numel() if isinstance(out, Tensor) else 0)
        return out


def test_neither_the_dense_matrix_nor_the_samples_are_ever_made() -> None:
    steps, samples = 24, 32
    params = MATCHING.model_copy(update={"samples": samples, "points": 1})
    with Largest() as seen:
        layer = SampledConvolution(C, OUT, [samples], grid_interpolation(params, steps, steps))
        layer(torch.randn(1, C, steps, requires_grad=True)).sum().backward()
    cells = steps * (steps + 1) // 2
    entries = 2 * samples * cells
    assert samples * steps * OUT < seen.numbers <= entries  # the sparse matrix is the largest of all
    assert seen.numbers < steps * samples * steps**2 / 10 and seen.numbers < samples * C * steps**2
