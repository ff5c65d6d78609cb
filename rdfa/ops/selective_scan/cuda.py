"""The scan on NVIDIA GPUs, by mamba-ssm's public `selective_scan_fn`, unmodified.

mamba-ssm is imported only when a scan on CUDA asks for it, and is used only if a small scan with
its backward really runs: an importable package may still lack a kernel for this GPU.

Called directly it keeps what its backward needs. torch.compile and torch.export cannot look into its
binding: they get it as an operator, rdfa::mamba_scan, whose backward scans forward once more.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from rdfa.ops.selective_scan.layout import Gradients, Scan, valid_steps


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
    valid = None if lengths is None else valid_steps(lengths, scans[0].u.shape[-1])
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
    scan = torch.ops.rdfa.mamba_scan if torch.compiler.is_compiling() else _mamba()
    out: Tensor = scan(u, delta, A.float(), B, C, D, z, delta_bias, delta_softplus)
    outputs = [part.flip(-1) if scan.reverse else part for part, scan in zip(out.chunk(len(scans)), scans, strict=True)]
    return outputs if valid is None else [part.masked_fill(~valid, 0) for part in outputs]


def _mamba() -> Callable[..., Tensor]:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    scan: Callable[..., Tensor] = selective_scan_fn
    return scan


@torch.library.custom_op("rdfa::mamba_scan", mutates_args=())
def mamba_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    """mamba-ssm's `selective_scan_fn`: output (B, D, T), time innermost."""
    return _mamba()(u, delta, A, B, C, D, z, delta_bias, delta_softplus).contiguous()


@mamba_scan.register_fake
def _(u: Tensor, *others: Any) -> Tensor:
    return u.new_empty(u.shape)


def mamba_gradients(
    grad_out: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, delta, A, B, C, D, z, delta_bias; empty for an absent input."""
    with torch.enable_grad():
        inputs = [None if x is None else x.detach().requires_grad_() for x in (u, delta, A, B, C, D, z, delta_bias)]
        out = _mamba()(*inputs, delta_softplus)
        found = iter(torch.autograd.grad(out, [x for x in inputs if x is not None], grad_out))
    du, ddelta, dA, dB, dC, dD, dz, dbias = (u.new_empty(0) if x is None else next(found).contiguous() for x in inputs)
    return du, ddelta, dA, dB, dC, dD, dz, dbias


# Registered by hand: in what the decorator `custom_op` registers nothing can be differentiated.
torch.library.define("rdfa::mamba_gradients", torch.library.infer_schema(mamba_gradients, mutates_args=()))
torch.library.impl("rdfa::mamba_gradients", "default", mamba_gradients)


@torch.library.register_fake("rdfa::mamba_gradients")  # type: ignore[untyped-decorator]
def _(grad_out: Tensor, u: Tensor, *others: Any) -> Gradients:
    du, ddelta, dA, dB, dC, dD, dz, dbias = (
        u.new_empty(0) if x is None else x.new_empty(x.shape) for x in (u, *others[:-1])
    )
    return du, ddelta, dA, dB, dC, dD, dz, dbias


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.delta_softplus = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    gradients = torch.ops.rdfa.mamba_gradients(grad_out, *tensors, ctx.delta_softplus)
    return *(None if x is None else gradient for x, gradient in zip(tensors, gradients, strict=True)), None


mamba_scan.register_autograd(_backward, setup_context=_setup_context)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
