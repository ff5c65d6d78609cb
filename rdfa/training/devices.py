"""Where a run computes, and how exactly: device, threads, determinism and the precision of float32 products."""

import logging
import os
import resource
import sys
from typing import cast

import torch
from torch import nn

from rdfa.errors import RdfaError
from rdfa.ops.products import use_fastest_exact_products
from rdfa.ops.selective_scan.build import find_compiler
from rdfa.schema import Run

logger = logging.getLogger(__name__)


def choose_device(run: Run) -> torch.device:
    """The device that the run asks for; `auto` takes CUDA where there is one.

    Raises:
        RdfaError: CUDA is asked for and there is none.
    """
    wanted = run.runtime.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RdfaError("runtime.device is 'cuda', but torch finds no CUDA device; see `rdfa doctor`")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def peak_memory(device: torch.device) -> int:
    """Bytes at the most so far: allocated on a GPU, else resident in this whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def set_arithmetic(run: Run, tfloat32: bool = False) -> None:
    """Set torch's global switches for this process: the job's threads are divided among its processes.

    Args:
        tfloat32: let products of float32 numbers round their factors to 10 bits of mantissa on GPUs that can. Off
            for convolutions too, where torch has it on by default.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of torchrun
    torch.set_num_threads(max(1, run.runtime.threads // here))
    torch.set_float32_matmul_precision("high" if tfloat32 else "highest")
    torch.backends.cudnn.allow_tf32 = (
        tfloat32  # the older switches throughout: torch refuses to mix them with the newer
    )
    if choose_device(run).type == "cpu":
        logger.info("float32 products: %s", use_fastest_exact_products())
    torch.set_deterministic_debug_mode("warn")  # as use_deterministic_algorithms, without importing the compiler
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # costs 5 % and hides what it should find


def compiled(model: nn.Module) -> nn.Module:
    """The model translated by torch.compile at its first call, with eager's random numbers.

    Raises:
        RdfaError: on a CPU, when there is no C++ compiler.
    """
    if find_compiler() is None and next(model.parameters()).device.type == "cpu":
        raise RdfaError("training.compile needs a C++ compiler on a CPU, and there is none; see `rdfa doctor`")
    from torch._inductor import config as inductor  # seconds to import

    inductor.deterministic = True
    inductor.fallback_random = True  # a dropped path must be the same video with and without compilation
    return cast(nn.Module, torch.compile(model))
