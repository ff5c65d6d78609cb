"""Which code runs a scan: the choice, the reasons for it, and an override for tests.

On a CPU the compiled kernel where it is built, else the chunked PyTorch form; on CUDA mamba-ssm
where it works, else the chunked form. `RDFA_SCAN_BACKEND` or `use_backend` choose by name.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from rdfa.errors import RdfaError
from rdfa.ops.selective_scan import chunked, cpu, cuda
from rdfa.ops.selective_scan.layout import Gradients

NAMES = ("reference", "chunked", "cpu", "cuda")
BUILD_COMMAND = "python -m rdfa.ops.selective_scan.build"  # written out: importing it would run the module twice
CUDA_COMMAND = "pip install --no-build-isolation mamba-ssm"

_logger = logging.getLogger(__name__)
_override: str | None = None


class Description(NamedTuple):
    """The backend in use, why, and the exact command that would give a faster one (None if there is none)."""

    backend: str
    why: str
    faster: str | None


class Kernel(NamedTuple):
    """A forward and a backward that share the layout of the saved states."""

    forward: Callable[..., tuple[Tensor, Tensor]]
    backward: Callable[..., Gradients]


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every scan in the block on one backend, whatever the environment says.

    Raises:
        RdfaError: no backend of that name, or it cannot run here.
    """
    global _override
    _require(name)
    before, _override = _override, name
    try:
        yield
    finally:
        _override = before


def available_backends() -> list[str]:
    """Names of the backends that can run here, in the order reference, chunked, cpu, cuda."""
    return [name for name in NAMES if _missing(name) is None]


def choose(device_type: str, dtype: torch.dtype) -> str:
    """The backend for tensors of a device ("cpu", "cuda") and dtype.

    Raises:
        RdfaError: RDFA_SCAN_BACKEND or `use_backend` asks for one that cannot take these tensors.
    """
    asked = _override or os.environ.get("RDFA_SCAN_BACKEND")
    if asked:
        _require(asked)
        if asked in ("cpu", "cuda") and (device_type != asked or dtype == torch.float64):
            raise RdfaError(f"the scan backend {asked!r} was asked for, but the tensors are {dtype} on {device_type!r}")
        return asked
    if dtype == torch.float64 or device_type not in ("cpu", "cuda"):
        return "chunked"
    reason = _missing(device_type)
    if reason is None:
        return device_type
    _say_once(device_type, reason)
    return "chunked"


# torch.compiler.assume_constant_result, without the second that importing torch.compiler's parts takes every command.
choose._dynamo_marked_constant = True  # type: ignore[attr-defined]


def kernel(backend: str) -> Kernel:
    """The code behind the custom operator: "cpu", or "chunked" also where an exported program finds no library."""
    module = cpu if backend == "cpu" and compiled_kernel_runs() else chunked
    return Kernel(module.forward, module.backward)


def compiled_kernel_runs() -> bool:
    """Whether the library is here; says so once where it is not and an exported program asks for it."""
    reason = _missing("cpu")
    if reason is not None:
        _say_once("cpu", reason)
    return reason is None


def describe(device_type: str | None = None) -> Description:
    """What a float32 scan on a device (by default CUDA where there is one) runs on, and why."""
    device_type = device_type or ("cuda" if torch.cuda.is_available() else "cpu")
    backend = choose(device_type, torch.float32)
    faster = None if backend == device_type else (BUILD_COMMAND if device_type == "cpu" else CUDA_COMMAND)
    if _override or os.environ.get("RDFA_SCAN_BACKEND"):
        source = "use_backend" if _override else "RDFA_SCAN_BACKEND"
        return Description(backend, f"{source} asks for it", None if backend == device_type else f"unset {source}")
    if backend == "cpu":
        return Description(backend, f"the compiled kernel, instruction set {cpu.instruction_sets()[-1]}", None)
    if backend == "cuda":
        return Description(backend, "mamba-ssm's selective_scan_fn works here", None)
    return Description(backend, _missing(device_type) or "no faster code for this device", faster)


def _missing(name: str) -> str | None:
    """Why a backend cannot run here, in one line; None if it can."""
    if name == "cpu":
        loaded = cpu.load()
        return loaded if isinstance(loaded, str) else None
    return cuda.missing() if name == "cuda" else None


def _require(name: str) -> None:
    if name not in NAMES:
        raise RdfaError(f"no scan backend is called {name!r}; there are {', '.join(NAMES)}")
    reason = _missing(name)
    if reason is not None:
        command = BUILD_COMMAND if name == "cpu" else CUDA_COMMAND
        raise RdfaError(f"the scan backend {name!r} cannot run here: {reason}; to get it: {command}")


@cache
def _say_once(device_type: str, reason: str) -> None:
    command = BUILD_COMMAND if device_type == "cpu" else CUDA_COMMAND
    _logger.warning("selective scan: %s; using the slower PyTorch form. For the fast one: %s", reason, command)
