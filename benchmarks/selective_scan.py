"""Speed and memory of the selective scan on this machine's CPU: python benchmarks/selective_scan.py [--quick]

All candidates in one process, interleaved, medians, with the machine's own floor beside them. With one
thread the times are the process's CPU time, which other jobs on the machine disturb least; with two
they are wall time. Needs nothing but rdfa; mambapy and transformers take part where they are installed.
The inputs are channel-last, the layout of a model's projections and the best of every candidate. The
whole run takes some 6 minutes, --quick about one; on a machine with other work many times that, since
small parallel operations wait for one another (the kernel is one parallel region a call).
"""

import argparse
import ctypes
import gc
import importlib
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rdfa.ops.selective_scan import available_backends, describe, selective_scan, use_backend
from rdfa.ops.selective_scan.build import KERNEL, find_compiler

SIZES = [(4, 512, 2304, 16), (4, 576, 512, 16), (8, 64, 256, 8)]
Shape = tuple[int, int, int, int]
Scan = Callable[[list[Tensor]], Tensor]


class Candidate(NamedTuple):
    """A way to scan: a function of (u, delta, A, B, C, D, z, delta_bias), with softplus, and its limits."""

    scan: Scan
    longest: int  # T beyond which it is not run
    reason: str = ""


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


def candidates(quick: bool) -> dict[str, Candidate | str]:
    """Every candidate, or in its place the reason why it is missing."""
    found: dict[str, Candidate | str] = {}
    for backend in ("cpu", "chunked", "reference"):
        label = {"reference": "reference: sequential loop (unbind)"}.get(backend, backend)
        found[label] = Candidate(own(backend), 10**6) if backend in available_backends() else "not available here"
    for name, limit, make in (
        ("mambapy", 600 if quick else 10**6, lambda module: by_states(module.pscan)),
        ("transformers", 256, lambda module: lambda x: module.mamba_selective_scan(*x, delta_softplus=True)),
    ):
        path = {"mambapy": "mambapy.pscan", "transformers": "transformers.models.mamba.modeling_mamba"}[name]
        reason = "--quick" if name == "mambapy" else "its backward is quadratic in T: minutes"
        try:
            found[name] = Candidate(make(importlib.import_module(path)), limit, reason)
        except ImportError as error:
            found[name] = f"not installed ({error})"
    found["torch associative_scan, eager"] = Candidate(by_states(associative), 600, "needs tens of GB")
    return found


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


def seconds(work: Callable[[], object], threads: int, repeats: int) -> float:
    clock = time.process_time if threads == 1 else time.perf_counter
    start = clock()
    for _ in range(repeats):
        work()
    return (clock() - start) / repeats


def measure(scans: dict[str, Scan], shape: Shape, threads: int, rounds: int) -> dict[tuple[str, str], float]:
    """Median milliseconds of (candidate, pass), interleaved; after 4 seconds a candidate sits out."""
    torch.set_num_threads(threads)
    inputs = make_inputs(shape)
    grad_out = torch.randn_like(inputs[0])
    work = {
        (name, label): lambda scan=scan, step=step: step(scan, inputs, grad_out)
        for name, scan in scans.items()
        for label, step in (("forward", forward), ("forward + backward", forward_backward))
    }
    first = {key: seconds(run, threads, 1) for key, run in work.items()}
    samples = {key: [value] if value > 2.0 else [] for key, value in first.items()}  # else it was to warm up
    spent = dict.fromkeys(work, 0.0)
    for _ in range(rounds):
        for key, run in work.items():
            if spent[key] > 4.0:
                continue
            start, repeats = time.perf_counter(), max(1, min(50, int(0.01 / first[key])))
            samples[key].append(seconds(run, threads, repeats))
            spent[key] += time.perf_counter() - start
    return {key: statistics.median(values) * 1e3 for key, values in samples.items()}


def peak_memory(scan: Scan, shape: Shape) -> float | None:
    """MiB that forward + backward, gradients included, takes above its inputs; None where Linux does not tell."""
    inputs = make_inputs(shape)
    grad_out = torch.randn_like(inputs[0])
    gc.collect()

    def status(field: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024

    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        forward_backward(scan, inputs, grad_out)
        return status("VmHWM") - before
    except (OSError, AttributeError, StopIteration):
        return None


FLOOR = """
#include "simd.h"
extern "C" int width() { return W; }
extern "C" float fma_loop(long count) {
    Vec x[16];
    for (int i = 0; i < 16; i++) x[i] = splat(1.0f + i);
    const Vec a = splat(0.999f), b = splat(0.001f);
    for (long k = 0; k < count; k += 16)
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) x[i] = x[i] * a + b;
    Vec sum{};
    for (int i = 0; i < 16; i++) sum += x[i];
    return sum[0];
}
extern "C" float exp_loop(long count) {
    Vec x[8], sum[8];
    for (int i = 0; i < 8; i++) x[i] = splat(-0.1f * i), sum[i] = Vec{};
    for (long k = 0; k < count; k += 8)
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) sum[i] += exp2(x[i]), x[i] -= 1e-7f;
    for (int i = 1; i < 8; i++) sum[0] += sum[i];
    return sum[0][0];
}
"""


def arithmetic_rates() -> tuple[float, float] | None:
    """Fused multiply-adds and exponentials per nanosecond on one thread, in the kernel's widest vectors."""
    compiler = find_compiler()
    if compiler is None or platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "floor.cpp"), Path(folder, "floor.so")
        source.write_text(FLOOR)
        options = ["-O3", "-std=c++17", "-march=native", "-mprefer-vector-width=512", "-shared", "-fPIC", f"-I{KERNEL}"]
        if subprocess.run([compiler, *options, "-w", str(source), "-o", str(library)], check=False).returncode:
            return None
        loops = ctypes.CDLL(str(library))
        rates = []
        for loop in (loops.fma_loop, loops.exp_loop):
            loop.argtypes, loop.restype = [ctypes.c_long], ctypes.c_float
            best = min(seconds(lambda loop=loop: loop(1 << 25), 1, 1) for _ in range(7))
            rates.append(loops.width() * (1 << 25) / best * 1e-9)
    return rates[0], rates[1]


def copy_bandwidth(threads: int) -> float:
    """GB/s read + written by a copy of 256 MiB."""
    torch.set_num_threads(threads)
    source, target = torch.ones(1 << 26), torch.zeros(1 << 26)
    best = min(seconds(lambda: target.copy_(source), threads, 1) for _ in range(7))
    return 2 * source.nbytes / best * 1e-9


def print_floor(shape: Shape) -> None:
    batch, channels, steps, states = shape
    bandwidth = copy_bandwidth(1)
    print(f"\n## Floor of this machine\n\ncopy: {bandwidth:.1f} GB/s read + written with 1 thread", end="")
    print(f", {copy_bandwidth(2):.1f} with 2")
    rates = arithmetic_rates()
    if rates is None:
        print("arithmetic: not measured (needs a C++ compiler and an x86-64 processor)")
        return
    fma, exp = rates
    print(f"one thread: {fma:.0f} multiply-adds/ns ({2 * fma:.0f} GFLOP/s), {exp:.1f} exponentials/ns")
    elements, tensor = batch * channels * steps * states, 4 * batch * channels * steps
    # Per state and step: forward 1 exp and 3 more (product, update, output); backward the same and 9 of the adjoint.
    for label, exps, fmas, tensors in (("forward", 1, 3, 5), ("forward + backward", 2, 15, 16)):
        arithmetic = elements * (exps / exp + fmas / fma) * 1e-6
        memory = tensors * tensor / bandwidth * 1e-6
        print(f"{label} at {shape}, one thread: arithmetic {arithmetic:.1f} ms, memory traffic {memory:.1f} ms")


def print_table(shape: Shape, found: dict[str, Candidate | str], rounds: int) -> None:
    print(f"\n## (B, D, T, N) = {shape}\n")
    scans = {name: c.scan for name, c in found.items() if isinstance(c, Candidate) and shape[2] <= c.longest}
    columns = [(threads, label) for threads in (1, 2) for label in ("forward", "forward + backward")]
    times = {threads: measure(scans, shape, threads, rounds) for threads in (1, 2)}
    torch.set_num_threads(1)
    header = [f"{label}, {threads} thread{'s' * (threads > 1)}, ms" for threads, label in columns]
    print(f"| | {' | '.join(header)} | times cpu (f + b, 1 thread) | peak MiB over inputs |")
    print(f"|---|{'---|' * 6}")
    ours = times[1].get(("cpu", "forward + backward"))
    for name, candidate in found.items():
        if name not in scans:
            why = candidate if isinstance(candidate, str) else f"not run at this T: {candidate.reason}"
            print(f"| {name} | {why} |")
            continue
        cells = [f"{times[threads][name, label]:.2f}" for threads, label in columns]
        ratio = times[1][name, "forward + backward"] / ours if ours else float("nan")
        peak = peak_memory(scans[name], shape)
        print(f"| {name} | {' | '.join(cells)} | {ratio:.1f} | {'-' if peak is None else f'{peak:.0f}'} |", flush=True)


def print_growth(backends: list[str]) -> None:
    print("\n## Growth with T: nanoseconds per step, forward + backward, at (1, 64, T, 16), one thread\n")
    lengths = (100, 1_000, 10_000, 100_000)
    print(f"| | {' | '.join(f'T = {steps:,}' for steps in lengths)} |\n|---|{'---|' * len(lengths)}")
    for backend in backends:
        cells = []
        for steps in lengths:
            times = measure({backend: own(backend)}, (1, 64, steps, 16), 1, 5)
            cells.append(f"{times[backend, 'forward + backward'] / steps * 1e6:.0f}")
        print(f"| {backend} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the selective scan's backends on this machine.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and no mambapy at the largest size")
    quick = parser.parse_args().quick
    print(f"# Selective scan on {platform.machine()}, {os.cpu_count()} processors, torch {torch.__version__}\n")
    print(f"backend: {describe('cpu').backend} ({describe('cpu').why}); load average {os.getloadavg()[0]:.1f}")
    print_floor(SIZES[0])
    for shape in SIZES:
        print_table(shape, candidates(quick), rounds=3 if quick else 9)
    print_growth([backend for backend in ("cpu", "chunked") if backend in available_backends()])


if __name__ == "__main__":
    main()
