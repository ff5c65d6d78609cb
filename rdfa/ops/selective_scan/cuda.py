"""The scan on NVIDIA GPUs, by mamba-ssm's public `selective_scan_fn`, unmodified.

mamba-ssm is imported only when a scan on CUDA asks for it, and is used only if a small scan with
its backward really runs: an importable package may still lack a kernel for this GPU.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from rdfa.ops.selective_scan.layout import check_lengths, valid_steps


@cache
def missing() -> str | None:
    """Why this backend cannot run here, in one line; None if it can."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    try:
        scan = _mamba()
    except Exception as error:  # mamba-ssm's imports fail in many ways, and all mean the same here
        return f"mamba-ssm cannot be imported ({type(error).__name__}: {_first_line(error)})"
    try:
        x = torch.ones(1, 4, 8, device="cuda", requires_grad=True)
        rates, maps = -torch.ones(4, 8, device="cuda"), torch.ones(1, 8, 8, device="cuda")
        torch.autograd.grad(scan(x, x, rates, maps, maps, delta_softplus=True).sum(), x)
        torch.cuda.synchronize()
    except Exception as error:  # a kernel that is not built for this GPU, or for this torch
        return f"mamba-ssm's selective_scan_fn does not run ({type(error).__name__}: {_first_line(error)})"
    return None


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
    lengths: Tensor | None = None,
) -> Tensor:
    """`rdfa.ops.selective_scan.selective_scan` by mamba-ssm; a reversed scan works on flipped copies."""
    timed = [u, delta, B, C, z]
    if lengths is not None:
        check_lengths(lengths, u.shape[-1])
        valid = valid_steps(lengths, u.shape[-1])
        # With u = 0 the padding drives no state, whatever its step sizes; its outputs are masked below.
        timed = [None if x is None else x.masked_fill(~valid, 0) for x in timed]
    if reverse:
        timed = [None if x is None else x.flip(-1) for x in timed]
    # The kernel takes one dtype for all that varies in time (under autocast they differ), float32 for the rest.
    u_t, delta_t, B_t, C_t, z_t = (None if x is None else x.to(u.dtype) for x in timed)
    D, delta_bias = (None if x is None else x.float() for x in (D, delta_bias))
    out: Tensor = _mamba()(u_t, delta_t, A.float(), B_t, C_t, D, z_t, delta_bias, delta_softplus)
    out = out.flip(-1) if reverse else out
    return out if lengths is None else out.masked_fill(~valid, 0)


def _mamba() -> Callable[..., Tensor]:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    scan: Callable[..., Tensor] = selective_scan_fn
    return scan


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
