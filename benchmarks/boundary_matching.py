"""Boundary matching against its dense form on this machine's CPU: python benchmarks/boundary_matching.py [--quick]

Features of all segments of a map, from N samples each, into O channels, three ways that give the same numbers:
dense, as published (features times a matrix T x N D T, then a convolution over the samples); gathered (the samples
by interpolation, without the matrix, then the same convolution); rdfa's (the convolution first, then a weighted sum of
its rows). One thread, CPU time, medians of interleaved calls; memory each in a process of its own. The matrix, dense or
sparse, is made once for a model, and is not in the times. The whole run takes some two minutes, --quick less than one.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from machine import describe_machine, forget_peak, resident, seconds
from torch import Tensor

from rdfa.models.proposals.boundary_matching import (
    SampledConvolution,
    boundary_points,
    cell_segments,
    grid_interpolation,
)
from rdfa.ops.sparse_rows import SparseRows
from rdfa.schema import BoundaryMatching


class Size(NamedTuple):
    name: str
    durations: int
    steps: int
    batch: int
    channels: int = 128
    outputs: int = 512
    samples: int = 32


SIZES = [Size("ActivityNet", 100, 100, 1), Size("THUMOS-14", 64, 256, 1)]
WAYS = ("dense", "gathered", "rdfa")
PASSES = ("forward", "forward + backward")
Way = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From features (B, C, T), weight (N, O, C) and bias (O,) to (D T, B, O)."""


def parameters(size: Size) -> BoundaryMatching:
    return BoundaryMatching(kind="boundary_matching", samples=size.samples, points=3, extend=0.5, width=size.channels)


def way(name: str, size: Size) -> Way:
    """One of `WAYS`, with its matrix made."""
    if name == "rdfa":
        rows = grid_interpolation(parameters(size), size.durations, size.steps)
        layer = SampledConvolution(size.channels, size.outputs, [size.samples], rows)

        def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return torch.func.functional_call(layer, {"weights.0": weight, "bias": bias}, (x,))

        return ours
    sampler = dense(size) if name == "dense" else gathered(size)

    def convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        samples = sampler(x)  # (B, C, N, D T)
        flat = weight.permute(1, 2, 0).flatten(1) @ samples.flatten(1, 2)
        return (flat + bias[:, None]).permute(2, 0, 1)

    return convolved


def sample_rows(size: Size) -> SparseRows:
    """Every sample of every cell as a row: (N D T, T)."""
    index, segments = cell_segments(size.durations, size.steps)
    points, cells = boundary_points(segments, parameters(size)), size.durations * size.steps
    low = np.floor(points.position).astype(np.int64)
    above = points.position - low
    step = np.concatenate([low, low + 1])
    weight = np.concatenate([1 - above, above]) * np.tile(points.weight, 2)
    row = np.tile(points.sample * cells + index[points.segment], 2)
    used = (step >= 0) & (step < size.steps) & (weight > 0)
    return SparseRows(row[used], step[used], weight[used], (size.samples * cells, size.steps))


def dense(size: Size) -> Callable[[Tensor], Tensor]:
    matrix = sample_rows(size)(torch.eye(size.steps)).T.contiguous()  # (T, N D T)
    return lambda x: (x @ matrix).unflatten(2, (size.samples, -1))


def gathered(size: Size) -> Callable[[Tensor], Tensor]:
    rows = sample_rows(size)

    def sampled(x: Tensor) -> Tensor:
        read: Tensor = rows(x.flatten(0, 1).T)  # (N D T, B C)
        return read.T.unflatten(0, x.shape[:2]).unflatten(2, (size.samples, -1))

    return sampled


def inputs(size: Size) -> list[Tensor]:
    torch.manual_seed(0)
    weight = torch.randn(size.samples, size.outputs, size.channels) / 64
    return [torch.randn(size.batch, size.channels, size.steps), weight, torch.randn(size.outputs)]


def call(run: Way, given: list[Tensor], label: str) -> None:
    if label == "forward":
        with torch.no_grad():
            run(*given)
    else:
        leaves = [x.detach().requires_grad_() for x in given]
        run(*leaves).square().sum().backward()


def measure(size: Size, rounds: int) -> dict[tuple[str, str], float]:
    """Median milliseconds of (way, pass), interleaved."""
    given, runs = inputs(size), {name: way(name, size) for name in WAYS}
    times: dict[tuple[str, str], list[float]] = {(name, label): [] for name in WAYS for label in PASSES}
    for turn in range(rounds + 1):
        for (name, label), found in times.items():
            spent = seconds(lambda name=name, label=label: call(runs[name], given, label), 1)
            if turn:  # the first call is slower
                found.append(spent * 1e3)
    return {key: statistics.median(found) for key, found in times.items()}


def difference(size: Size) -> float:
    """Largest difference of the ways from the dense form, as a share of the largest number."""
    given = inputs(size)
    with torch.no_grad():
        expected, *others = (way(name, size)(*given) for name in WAYS)
    return max(float((found - expected).abs().max() / expected.abs().max()) for found in others)


def peak_memory(name: str, size: Size) -> float:
    """MiB above the inputs, the matrix included, at the peak of forward and backward."""
    given = inputs(size)
    forget_peak()
    before = resident()
    call(way(name, size), given, PASSES[1])
    return resident(peak=True) - before


def in_own_process(name: str, size: Size) -> float:
    command = [sys.executable, __file__, "--peak", json.dumps([name, size])]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_table(size: Size, rounds: int) -> None:
    times = measure(size, rounds)
    peaks = {name: in_own_process(name, size) for name in WAYS}
    print(f"\n## {size.name}: D = {size.durations}, T = {size.steps}, batch {size.batch}, {size.channels} channels\n")
    print(f"largest relative difference of the results: {difference(size):.0e}\n")
    print("| | forward, ms | times rdfa | forward + backward, ms | times rdfa | peak MiB | times rdfa |")
    print("|---|---|---|---|---|---|---|")
    for name in WAYS:
        cells = [f"{times[name, label]:,.0f} | {times[name, label] / times['rdfa', label]:.1f}" for label in PASSES]
        print(f"| {name} | {' | '.join(cells)} | {peaks[name]:,.0f} | {peaks[name] / peaks['rdfa']:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, and the smaller map alone")
    parser.add_argument("--peak", type=json.loads, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.peak:  # a process that this program started
        print(peak_memory(asked.peak[0], Size(*asked.peak[1])))
        return
    print(f"# Boundary matching\n\n{describe_machine()}")
    for size in SIZES[:1] if asked.quick else SIZES:
        print_table(size, 1 if asked.quick else 3)


if __name__ == "__main__":
    main()
