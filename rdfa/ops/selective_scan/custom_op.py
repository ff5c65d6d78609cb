"""The scan as PyTorch custom operators: rdfa::selective_scan and its backward.

Registered with shapes for tracing and with autograd, so that torch.compile, torch.export,
autocast and activation checkpointing accept them. `backend` is "cpu" or "chunked"; both save the
same boundary states, so that a program exported with one can run with the other.

Where nobody traces, the same two functions are called without the operators: their dispatch takes longer than a
short scan.
"""

from typing import Any

import torch
from torch import Tensor

from rdfa.ops.selective_scan import backends
from rdfa.ops.selective_scan.layout import boundary_states, check_lengths, like, traced


def selective_scan(
    u: Tensor,
    others: tuple[Tensor | None, ...],
    lengths: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    backend: str,
) -> Tensor:
    """Output (B, D, T) by the backend "cpu" or "chunked", from u and (delta, A, B, C, D, z, delta_bias)."""
    tensors = (u, *others)
    keep_states = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    arguments: Any = (*tensors, lengths, delta_softplus, reverse, keep_states, backend)
    if traced(u):
        traced_out: Tensor = selective_scan_forward(*arguments)[0]
        return traced_out
    if not keep_states:
        return _forward(*arguments)[0]
    out: Tensor = SelectiveScan.apply(*arguments)  # type: ignore[no-untyped-call]
    return out


def _forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    keep_states: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Output (B, D, T), and the boundary states that the backward needs (empty unless `keep_states`)."""
    if lengths is not None:
        check_lengths(lengths, u.shape[-1])
    kernel = backends.kernel(backend)
    return kernel.forward(u, delta, A, B, C, D, z, delta_bias, lengths, delta_softplus, reverse, keep_states)


selective_scan_forward = torch.library.custom_op("rdfa::selective_scan", _forward, mutates_args=())


@selective_scan_forward.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    keep_states: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return like(u), boundary_states(u, A.shape[1], keep_states)


def _gradients(
    grad_out: Tensor,
    states: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, delta, A, B, C, D, z, delta_bias, each in its input's dtype; empty for absent inputs."""
    kernel = backends.kernel(backend)
    gradients = kernel.backward(grad_out, states, u, delta, A, B, C, D, z, delta_bias, lengths, delta_softplus, reverse)
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    du, ddelta, dA, dB, dC, dD, dz, dbias = (
        u.new_empty(0) if x is None else gradient.to(x.dtype) for x, gradient in zip(inputs, gradients, strict=True)
    )
    return du, ddelta, dA, dB, dC, dD.clone(), dz, dbias.clone()


selective_scan_backward = torch.library.custom_op("rdfa::selective_scan_backward", _gradients, mutates_args=())


@selective_scan_backward.register_fake
def _(
    grad_out: Tensor,
    states: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    def vector(x: Tensor | None) -> Tensor:
        return u.new_empty(0) if x is None else x.new_empty(x.shape)

    grad_z = u.new_empty(0) if z is None else like(z)
    return like(u), like(delta), A.new_empty(A.shape), like(B), like(C), vector(D), grad_z, vector(delta_bias)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    tensors, (ctx.delta_softplus, ctx.reverse, _, ctx.backend) = inputs[:9], inputs[9:]
    ctx.save_for_backward(output[1], *tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_out: Tensor | None, grad_states: Tensor | None = None) -> tuple[Tensor | None, ...]:
    if grad_out is None:
        return (None,) * 13
    states, *tensors = ctx.saved_tensors
    # The operator refuses second derivatives; what calls a library would leave them out in silence.
    differentiate: Any = selective_scan_backward if torch.is_grad_enabled() or traced(grad_out) else _gradients
    gradients = differentiate(grad_out, states, *tensors, ctx.delta_softplus, ctx.reverse, ctx.backend)
    given = (None if x is None else gradient for x, gradient in zip(tensors[:8], gradients, strict=True))
    return (*given, None, None, None, None, None)


selective_scan_forward.register_autograd(_backward, setup_context=_keep)


class SelectiveScan(torch.autograd.Function):
    """The operator's output, without its dispatch."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        output = _forward(*inputs)
        _keep(ctx, inputs, output)
        return output[0]

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None) -> tuple[Tensor | None, ...]:
        return _backward(ctx, grad_out)
