"""What the backends share: the layout of outputs and saved states, and the valid steps of a video."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Of u, delta, A, B, C, D, z, delta_bias; empty for an absent input."""

CHUNK = 32
"""Steps between two saved states (the kernel's kChunk)."""


class Scan(NamedTuple):
    """What one of several scans has of its own; shapes as `selective_scan`'s."""

    u: Tensor
    delta: Tensor
    B: Tensor
    C: Tensor
    z: Tensor | None
    reverse: bool


def traced(x: Tensor) -> bool:
    """Whether PyTorch must see an operator: it compiles, exports, counts or transforms, or x holds no numbers."""
    return (
        torch.compiler.is_compiling()
        or type(x) not in (Tensor, torch.nn.Parameter)
        or x.device.type == "meta"
        or is_in_torch_dispatch_mode()
        or torch._C._are_functorch_transforms_active()
    )


def like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised tensor of the shape of x (B, rows, T) in its memory order: channel-last or time-last."""
    dtype = x.dtype if dtype is None else dtype
    batch, rows, steps = x.shape
    if x.stride(1) == 1:
        return torch.empty((batch, steps, rows), dtype=dtype, device=x.device).transpose(1, 2)
    return torch.empty((batch, rows, steps), dtype=dtype, device=x.device)


def state_dtype(x: Tensor) -> torch.dtype:
    """States are float32, or float64 where the input is."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def boundary_states(u: Tensor, states: int, keep: bool) -> Tensor:
    """An uninitialised (B, chunks, N, D) tensor for the state before each chunk of `CHUNK` steps.

    Chunks are numbered in the order of the scan. Empty unless `keep`.
    """
    batch, channels, steps = u.shape
    shape = (batch, (steps + CHUNK - 1) // CHUNK, states, channels) if keep else (0,)
    return torch.empty(shape, dtype=state_dtype(u), device=u.device)


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """(B, 1, T) mask of the steps before each length."""
    return (torch.arange(steps, device=lengths.device) < lengths.unsqueeze(1)).unsqueeze(1)


def check_lengths(lengths: Tensor, steps: int) -> None:
    """Refuse a length that is not from 0 to `steps`; on a GPU nothing is looked at.

    Looking would make the CPU wait for the GPU at every scan. A length outside acts there as the nearest one inside:
    the mask is made by comparison, and no memory is reached by it.

    Raises:
        ValueError: with the smallest and the largest length.
    """
    if len(lengths) == 0 or lengths.device.type != "cpu":
        return
    least, most = (int(value) for value in lengths.aminmax())
    if least < 0 or most > steps:
        raise ValueError(f"selective_scan: lengths must be from 0 to {steps}, but they are from {least} to {most}")
