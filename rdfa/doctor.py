"""What this machine gives rdfa: versions, the scan's backend and why, a self-test of it, and what would be faster."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import time
from collections.abc import Callable

import torch
from torch import Tensor

import rdfa
from rdfa.errors import RdfaError
from rdfa.ops.products import use_fastest_exact_products
from rdfa.ops.selective_scan import available_backends, describe, selective_scan, use_backend
from rdfa.ops.selective_scan.advice import cuda_command
from rdfa.ops.selective_scan.backends import Description
from rdfa.ops.selective_scan.build import find_compiler, without_compiler

TOLERANCE = 1e-5
"""Largest error of an output or gradient, relative to its largest value, that the self-test calls correct."""


def diagnose() -> str:
    """A report in plain text, a fact a line; takes a few seconds, most of them the self-test."""
    backend, why, faster = _backend()
    lines = [
        ("rdfa", rdfa.__version__),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads on {os.cpu_count()} processors"),
        ("CUDA", _cuda()),
        ("C++ compiler", _compiler()),
        ("mamba-ssm", _version("mamba-ssm")),
        ("scan backends", ", ".join(available_backends())),
        ("scan backend used", f"{backend} ({why})"),
        ("float32 products", use_fastest_exact_products()),
        ("self-test", self_test()),
        ("faster", _advice(faster)),
    ]
    return "\n".join(f"{name + ':':<18} {value}" for name, value in lines)


def _backend() -> Description:
    """The scan's backend; one that is asked for and cannot run here is a fact of the report, not its end."""
    try:
        return describe()
    except RdfaError as error:
        return Description("none", str(error), "unset RDFA_SCAN_BACKEND")


def self_test(device: str | None = None) -> str:
    """Run the chosen backend against the sequential reference: correct, and how much faster?

    Forward and all gradients are compared with the float64 reference on a small problem
    (2, 48, 150, 16); forward + backward is timed at (2, 128, 576, 16). A backend that fails is told like a wrong one.
    """
    try:
        return _tested(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RdfaError as error:
        return f"not run: {error}"
    except Exception as error:  # whatever a foreign library or driver raises
        return f"FAILED: {type(error).__name__}: {str(error).strip().split(chr(10))[0]}"


def _tested(device: str) -> str:
    small = _inputs(2, 48, 150, 16, device)
    with use_backend("reference"):
        expected = _forward_backward([x.double() for x in small])
    worst = _largest_error(_forward_backward(small), expected)
    verdict = "correct" if worst <= TOLERANCE else "WRONG: please report this"
    large = _inputs(2, 128, 576, 16, device)
    ours = _seconds(lambda: _forward_backward(large), repeats=5)
    with use_backend("reference"):
        reference = _seconds(lambda: _forward_backward(large), repeats=1)
    speed = f"{ours * 1e3:.1f} ms forward and backward, {reference / ours:.0f} times faster than the reference"
    return f"{verdict} (largest relative error {worst:.1e}); {speed}"


def _largest_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """NaN if any error is: torch's maximum keeps it, where Python's drops it."""
    errors = [(x.double() - y).abs().max() / y.abs().max() for x, y in zip(found, expected, strict=True)]
    return float(torch.stack(errors).max())


def _inputs(batch: int, channels: int, steps: int, states: int, device: str) -> list[Tensor]:
    """u, delta, A, B, C, D, z, delta_bias as a trained model has them."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    time_major = (batch, steps, channels)
    u, delta, z = (normal(*time_major).transpose(1, 2) for _ in range(3))
    B, C = (normal(batch, steps, states).transpose(1, 2) for _ in range(2))
    A = -torch.arange(1.0, states + 1).repeat(channels, 1)
    return [x.to(device) for x in (u, delta, A, B, C, normal(channels), z, normal(channels) - 3)]


def _forward_backward(inputs: list[Tensor]) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    u, delta, A, B, C, D, z, delta_bias = leaves
    out = selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus=True)
    return [out.detach(), *torch.autograd.grad(out.sum(), leaves)]


def _seconds(work: Callable[[], object], repeats: int) -> float:
    """The median time of `repeats` runs after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[repeats // 2]


def _cuda() -> str:
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not torch.cuda.is_available():
        return f"torch is built for CUDA {torch.version.cuda}, but sees no device"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{torch.version.cuda}, {', '.join(names)}"


def _compiler() -> str:
    compiler = find_compiler()
    if compiler is None:
        return f"none: {without_compiler()}"
    try:
        asked = subprocess.run([*compiler, "--version"], capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        return f"{shlex.join(compiler)} (cannot be started: {error.strerror or error})"
    first = asked.stdout.strip().split("\n")[0]
    return f"{shlex.join(compiler)} ({first})" if first else shlex.join(compiler)


def _advice(faster: str | None) -> str:
    """What to run for a faster scan: on a machine with an NVIDIA card the card's, also if torch cannot see it."""
    if faster and faster.startswith("unset"):
        return faster
    on_card = cuda_command()
    if on_card:
        return on_card
    if faster and "build" in faster and find_compiler() is None:
        return f"install a C++ compiler (Debian: apt-get install g++), then: {faster}"
    return faster or "nothing to do: this is the fastest backend for this machine"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
