"""Speed and memory of the selective scan on this machine's CPU: python benchmarks/selective_scan.py [--quick]

All candidates in one process, interleaved, medians, with the machine's own floor beside them; memory each in a
process of its own. With one thread the times are the process's CPU time, which other jobs on the machine disturb
least; with two they are wall time. Needs nothing but rdfa; mambapy and transformers, which are peers here and no part
of rdfa, take part where they are installed. The inputs are channel-last, the layout of a model's projections and the
best of every candidate. The whole run takes some four minutes, --quick about one; on a machine with other work many
times that, since small parallel operations wait for one another (the kernel is one parallel region a call).
"""

import argparse
import gc
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from machine import arithmetic_rates, copy_bandwidth, describe_machine, forget_peak, resident, seconds
from torch import Tensor

from rdfa.ops.selective_scan import available_backends, describe, selective_scan, use_backend

SIZES = [(4, 512, 2304, 16), (4, 576, 512, 16), (8, 64, 256, 8)]
LENGTHS = [100, 1_000, 10_000, 100_000]
Shape = tuple[int, int, int, int]
Scan = Callable[[list[Tensor]], Tensor]
BACKENDS = {"cpu": "cpu", "chunked": "chunked", "reference": "reference: sequential loop (unbind)"}
MAMBAPY, TRANSFORMERS = "mambapy, pscan", "transformers, Mamba's slow path"
FOREVER = 10**9
ENOUGH = 2.0
"""Seconds after which a candidate sits out."""
BLOCK = 0.02
"""Seconds of a candidate's turn where a call is shorter: what the others left of caches and heap then counts little."""
PASSES = ("forward", "forward + backward")


class Candidate(NamedTuple):
    """A way to scan: a function of (u, delta, A, B, C, D, z, delta_bias), with softplus, and its limits."""

    scan: Scan
    longest: int = FOREVER
    """T beyond which it is not run."""
    longest_backward: int = FOREVER
    """T beyond which only its forward pass is run."""
    reason: str = ""
    """Of the limits."""


Found = dict[str, Candidate | str]
"""Every candidate by its name, or in its place the reason why it is missing."""


def own(backend: str) -> Scan:
    def scan(inputs: list[Tensor]) -> Tensor:
        with use_backend(backend):
            return selective_scan(*inputs, delta_softplus=True)

    return scan


def by_states(all_states: Callable[[Tensor, Tensor], Tensor]) -> Scan:
    """From a function of decays and inputs, (B, T, D, N), to states."""

    def scan(inputs: list[Tensor]) -> Tensor:
        u, delta, A, B, C, D, z, bias = inputs
        u, delta, B, C, z = (x.transpose(1, 2) for x in (u, delta, B, C, z))
        dt = F.softplus(delta + bias)
        states = all_states(torch.exp(dt.unsqueeze(-1) * A), (dt * u).unsqueeze(-1) * B.unsqueeze(2))
        y = (states @ C.unsqueeze(-1)).squeeze(3) + D * u
        return (y * F.silu(z)).transpose(1, 2)

    return scan


def associative(decay: Tensor, driven: Tensor) -> Tensor:
    from torch._higher_order_ops.associative_scan import associative_scan

    def combine(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return a[0] * b[0], b[0] * a[1] + b[1]

    return associative_scan(combine, (decay, driven), dim=1, combine_mode="generic")[1]


def candidates(quick: bool, only: str | None = None) -> Found:
    """All candidates, or those that can be `only`: a process that measures one need not import the others."""
    found: Found = {}
    for backend, label in BACKENDS.items():
        found[label] = Candidate(own(backend)) if backend in available_backends() else "not available here"
    if only in (None, MAMBAPY):
        module, limit = peer("mambapy", "mambapy.pscan"), 600 if quick else FOREVER
        found[MAMBAPY] = (
            module if isinstance(module, str) else Candidate(by_states(module.pscan), longest=limit, reason="--quick")
        )
    if only in (None, TRANSFORMERS):
        module, why = peer("transformers", "transformers.models.mamba.modeling_mamba"), "quadratic in T: minutes"
        found[TRANSFORMERS] = (
            module if isinstance(module, str) else Candidate(slow_path(module), longest_backward=256, reason=why)
        )
    found["torch associative_scan, eager"] = Candidate(by_states(associative), longest=600, reason="needs tens of GB")
    return found


def slow_path(module: Any) -> Scan:
    scan: Callable[..., Tensor] = module.mamba_selective_scan
    return lambda inputs: scan(*inputs, delta_softplus=True)


def peer(name: str, module: str) -> Any:
    """A peer's module, or how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if (error.name or "").split(".")[0] != name:
            return f"cannot be imported: {error}"
        return f"not installed; to get it: pip install {name}"


def make_inputs(shape: Shape, channel_last: bool = True) -> list[Tensor]:
    batch, channels, steps, states = shape
    torch.manual_seed(0)

    def timed(rows: int) -> Tensor:
        x = torch.randn(batch, steps, rows).transpose(1, 2)
        return x if channel_last else x.contiguous()

    u, delta, z, B, C = timed(channels), timed(channels), timed(channels), timed(states), timed(states)
    A = -torch.arange(1.0, states + 1).repeat(channels, 1)
    return [u, delta, A, B, C, torch.randn(channels), z, torch.randn(channels) - 3]


def forward(scan: Scan, inputs: list[Tensor], grad_out: Tensor) -> None:
    with torch.no_grad():
        scan(inputs)


def forward_backward(scan: Scan, inputs: list[Tensor], grad_out: Tensor) -> None:
    leaves = [x.detach().requires_grad_() for x in inputs]
    torch.autograd.grad(scan(leaves), leaves, grad_out)


def measure(found: Found, shape: Shape, threads: int, rounds: int) -> dict[tuple[str, str], float | str]:
    """Median milliseconds of (candidate, pass), interleaved, or why there are none."""
    torch.set_num_threads(threads)
    inputs = make_inputs(shape)
    grad_out = torch.randn_like(inputs[0])
    times: dict[tuple[str, str], float | str] = {}
    work, first, once = {}, {}, {}
    for name, candidate in found.items():
        for label, step in zip(PASSES, (forward, forward_backward), strict=True):
            reason = missing(candidate, shape[2], backward=step is forward_backward)
            if reason is None:
                run = lambda scan=candidate.scan, step=step: step(scan, inputs, grad_out)  # noqa: E731
                try:
                    first[name, label] = seconds(run, threads)
                    if first[name, label] < ENOUGH:  # it was to warm up
                        once[name, label] = seconds(run, threads)
                    work[name, label] = run
                except Exception as error:  # of a peer's code: reported in its row
                    reason = f"fails ({type(error).__name__}: {str(error).strip().splitlines()[0][:100]})"
            if reason is not None:
                times[name, label] = reason
    samples = {key: [] if key in once else [value] for key, value in first.items()}
    spent = dict.fromkeys(work, 0.0)
    for _ in range(rounds):
        for key, run in work.items():
            if spent[key] > ENOUGH or first[key] > 10.0:
                continue
            start, repeats = time.perf_counter(), max(1, min(50, int(BLOCK / once.get(key, BLOCK))))
            samples[key].append(seconds(run, threads, repeats))
            spent[key] += time.perf_counter() - start
    return times | {key: statistics.median(values) * 1e3 for key, values in samples.items()}


def missing(candidate: Candidate | str, steps: int, backward: bool) -> str | None:
    """Why a candidate is not run at T = `steps`; None if it is."""
    if isinstance(candidate, str):
        return candidate
    longest = min(candidate.longest, candidate.longest_backward) if backward else candidate.longest
    return None if steps <= longest else f"not run: {candidate.reason}"


def peak_memory(name: str, shape: Shape) -> float:
    """MiB that forward + backward, gradients included, takes above its inputs; the first call of this process."""
    torch.set_num_threads(1)
    candidate = candidates(quick=False, only=name)[name]
    assert isinstance(candidate, Candidate)
    forward_backward(candidate.scan, make_inputs((1, 8, 40, 4)), torch.ones(1, 8, 40))  # imports and loads
    inputs = make_inputs(shape)
    grad_out = torch.randn_like(inputs[0])
    gc.collect()
    forget_peak()
    before = resident()
    forward_backward(candidate.scan, inputs, grad_out)
    return resident(peak=True) - before


def peak_in_own_process(name: str, shape: Shape) -> str:
    command = [sys.executable, __file__, "--peak", json.dumps([name, shape])]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{float(result.stdout):.0f}" if result.returncode == 0 else "fails"


def print_floor(threads: list[int]) -> Callable[[Shape], None]:
    """Measure what the machine can do; returns what prints the floor of a size."""
    bandwidth = {count: copy_bandwidth(count) for count in threads}
    listed = ", ".join(f"{value:.1f} GB/s with {count}" for count, value in bandwidth.items())
    print(f"\n## Floor of this machine\n\nthreads and copy, read + written: {listed}")
    rates = arithmetic_rates()
    if rates is None:
        print("arithmetic: not measured (needs a C++ compiler and an x86-64 processor)")
        return lambda shape: None
    fma, exp = rates
    print(f"one thread: {fma:.0f} multiply-adds/ns ({2 * fma:.0f} GFLOP/s), {exp:.1f} exponentials/ns")

    def of(shape: Shape) -> None:
        batch, channels, steps, states = shape
        elements, tensor = batch * channels * steps * states, 4 * batch * channels * steps
        # A state and step: forward 1 exp and 3 more (product, update, output); backward the same and 9 of the adjoint.
        for label, exps, fmas, tensors in (("forward", 1, 3, 5), ("forward + backward", 2, 15, 16)):
            arithmetic = elements * (exps / exp + fmas / fma) * 1e-6
            memory = tensors * tensor / bandwidth[1] * 1e-6
            print(f"floor, {label}, 1 thread: arithmetic {arithmetic:.1f} ms, memory traffic {memory:.1f} ms")

    return of


def print_table(shape: Shape, found: Found, threads: list[int], rounds: int) -> None:
    columns = [(count, label) for count in threads for label in PASSES]
    times = {count: measure(found, shape, count, rounds) for count in threads}
    torch.set_num_threads(1)
    header = [f"{label}, {count} thread{'s' * (count > 1)}, ms" for count, label in columns]
    print(f"\n| | {' | '.join(header)} | times cpu (f + b, 1 thread) | peak MiB over inputs |")
    print(f"|---|{'---|' * (len(columns) + 2)}")
    ours = times[1].get(("cpu", PASSES[1]))
    for name, candidate in found.items():
        if isinstance(candidate, str):
            print(f"| {name} | {candidate} |")
            continue
        cells = [times[count][name, label] for count, label in columns]
        shown = [cell if isinstance(cell, str) else f"{cell:,.2f}" for cell in cells]
        both = times[1][name, PASSES[1]]
        ratio, peak = "-", "-"
        if not isinstance(both, str):
            peak = peak_in_own_process(name, shape)
            ratio = f"{both / ours:.1f}" if isinstance(ours, float) else "-"
        print(f"| {name} | {' | '.join(shown)} | {ratio} | {peak} |", flush=True)


def print_growth(lengths: list[int]) -> None:
    print("\n## Growth with T: nanoseconds per step, forward + backward, at (1, 64, T, 16), one thread\n")
    print(f"| | {' | '.join(f'T = {steps:,}' for steps in lengths)} |\n|---|{'---|' * len(lengths)}")
    for backend, label in BACKENDS.items():
        if backend not in available_backends():
            continue
        longest = 10_000 if backend == "reference" else FOREVER  # beyond, it takes minutes and gigabytes
        cells = []
        for steps in lengths:
            times = measure({label: Candidate(own(backend), longest, reason="long")}, (1, 64, steps, 16), 1, 5)
            each = times[label, PASSES[1]]
            cells.append(each if isinstance(each, str) else f"{each / steps * 1e6:,.0f}")
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and no mambapy at the largest size")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="1 alone on a busy machine (default 1 2)"
    )
    parser.add_argument("--sizes", type=json.loads, default=SIZES, help="[[B, D, T, N], ...] instead of the model's")
    parser.add_argument("--lengths", type=json.loads, default=LENGTHS, help="[T, ...] of the growth with T")
    parser.add_argument("--peak", type=json.loads, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak:  # a process that this program started
        print(peak_memory(*asked.peak))
        return
    print(f"# Selective scan\n\n{describe_machine()}\n")
    print(f"backend here: {describe('cpu').backend} ({describe('cpu').why})")
    threads = sorted({1, *(count for count in asked.threads if count <= (os.cpu_count() or 1))})
    print_floor_of = print_floor(threads)
    for shape in map(tuple, asked.sizes):
        print(f"\n## (B, D, T, N) = {shape}\n")
        print_floor_of(shape)
        print_table(shape, candidates(asked.quick), threads, rounds=3 if asked.quick else 9)
    print_growth(asked.lengths)


if __name__ == "__main__":
    main()
