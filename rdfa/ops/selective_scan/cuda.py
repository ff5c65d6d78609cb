"""The scan on NVIDIA GPUs, by mamba-ssm's public `selective_scan_fn`, unmodified.

mamba-ssm is imported only when a scan on CUDA asks for it, and is used only if a small scan with
its backward really runs: an importable package may still lack a kernel for this GPU.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import torch
from torch import Tensor

from rdfa.ops.selective_scan.layout import Scan, check_lengths, valid_steps


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
        with torch.inference_mode(False), torch.enable_grad():  # detection asks first, and the answer is kept
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
    return selective_scans([Scan(u, delta, B, C, z, reverse)], A, D, delta_bias, delta_softplus, lengths)[0]


def selective_scans(
    scans: Sequence[Scan],
    A: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    lengths: Tensor | None,
) -> list[Tensor]:
    """`rdfa.ops.selective_scan.selective_scans` by one launch: the scans follow each other in the batch.

    The kernel wants time innermost, so that channel-last inputs are copied in any case; the copy is the stacking.
    """
    valid = None
    if lengths is not None:
        check_lengths(lengths, scans[0].u.shape[-1])
        valid = valid_steps(lengths, scans[0].u.shape[-1])
    dtype = scans[0].u.dtype

    def stacked(parts: Iterable[Tensor | None]) -> Tensor | None:
        rows = []
        for part, scan in zip(parts, scans, strict=True):
            if part is None:
                return None
            # With u = 0 the padding drives no state, whatever its step sizes; its outputs are masked below.
            row = part if valid is None else part.masked_fill(~valid, 0)
            # The kernel takes one dtype for all that varies in time; under autocast they differ.
            rows.append((row.flip(-1) if scan.reverse else row).to(dtype))
        return torch.cat(rows)

    u, delta, B, C, z = (stacked(parts) for parts in list(zip(*scans, strict=True))[:5])
    D, delta_bias = (None if x is None else x.float() for x in (D, delta_bias))
    out: Tensor = _mamba()(u, delta, A.float(), B, C, D, z, delta_bias, delta_softplus)
    outputs = [part.flip(-1) if scan.reverse else part for part, scan in zip(out.chunk(len(scans)), scans, strict=True)]
    return outputs if valid is None else [part.masked_fill(~valid, 0) for part in outputs]


def _mamba() -> Callable[..., Tensor]:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    scan: Callable[..., Tensor] = selective_scan_fn
    return scan


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
