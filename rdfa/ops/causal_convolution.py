"""Parallel depthwise causal convolutions with SiLU: what turns a sequence into the maps that selective scans read.

`causal_maps` chooses; `causal_convolution` is the definition in PyTorch and runs where the compiled kernel
(`selective_scan/kernel/convolution.h`) does not: on other devices, in float64, without a compiler.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rdfa.ops.selective_scan import backends, cpu
from rdfa.ops.selective_scan.layout import traced

MOST_KERNELS, WIDEST = 8, 64
"""What one call of the compiled kernel takes (kernel/problem.h, kernel/convolution.h)."""


def causal_convolution(x: Tensor, weight: Tensor, bias: Tensor, reverse: bool = False) -> Tensor:
    """Depthwise convolution that sees the present and the past, or with `reverse` the present and the future.

    forward  y[t] = bias + sum_j weight[:, j] * x[t - (k - 1) + j]
    reverse  y[t] = bias + sum_j weight[:, j] * x[t + (k - 1) - j]

    so that `reverse` equals flipping, convolving and flipping back. Steps outside count as zero.

    Args:
        x: (B, T, D).  weight: (D, k).  bias: (D,).

    Returns:
        (B, T, D).
    """
    history = weight.shape[1] - 1
    padded = F.pad(x, (0, 0, 0, history) if reverse else (0, 0, history, 0))
    kernel = weight.flip(1) if reverse else weight
    # As an image of height 1 in channels-last memory, the layout that needs no copy.
    image = padded.transpose(1, 2).unsqueeze(2)
    return F.conv2d(image, kernel[:, None, None, :], bias, groups=x.shape[2])[:, :, 0].transpose(1, 2)


def causal_maps(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], reverse: bool = False) -> list[Tensor]:
    """SiLU(causal_convolution(x, weight, bias)) for every kernel, by one pass over x where the compiled kernel runs.

    Args:
        x: (B, T, D).  weights: K times (D, k), widths of their own.  biases: K times (D,).

    Returns:
        K times (B, T, D) in the dtype of x.
    """
    fits = 0 < len(weights) <= MOST_KERNELS and all(weight.shape[1] <= WIDEST for weight in weights)
    if fits and x.numel() and backends.choose(x.device.type, x.dtype) == "cpu":
        if traced(x):
            maps: list[Tensor] = causal_maps_forward(x, list(weights), list(biases), reverse)
            return maps
        return list(CausalMaps.apply(x, reverse, *weights, *biases))  # type: ignore[no-untyped-call]
    return [F.silu(causal_convolution(x, *kernel, reverse)) for kernel in zip(weights, biases, strict=True)]


def _maps(x: Tensor, weights: list[Tensor], biases: list[Tensor], reverse: bool) -> list[Tensor]:
    """K maps (B, T, D) by the compiled kernel; in PyTorch where an exported program finds no library."""
    if not backends.compiled_kernel_runs():
        return _maps_in_pytorch(x, weights, biases, reverse)
    problem, alive = _problem(x, weights, biases, reverse)
    maps = [cpu.fresh(torch.empty(x.shape, dtype=cpu.native(x.dtype))) for _ in weights]
    for k, map_k in enumerate(maps):
        problem.out[k] = _tensor(map_k)
    cpu.call(cpu.library().rdfa_convolution_forward, problem)
    del alive
    return [map_k.to(x.dtype) for map_k in maps]


causal_maps_forward = torch.library.custom_op("rdfa::causal_maps", _maps, mutates_args=())


@causal_maps_forward.register_fake
def _(x: Tensor, weights: list[Tensor], biases: list[Tensor], reverse: bool) -> list[Tensor]:
    return [x.new_empty(x.shape) for _ in weights]


def _gradients(
    grad_maps: list[Tensor], x: Tensor, weights: list[Tensor], biases: list[Tensor], reverse: bool
) -> list[Tensor]:
    """Gradients of x, of the K weights and of the K biases."""
    if not backends.compiled_kernel_runs():
        return _gradients_in_pytorch(grad_maps, x, weights, biases, reverse)
    problem, alive = _problem(x, weights, biases, reverse)
    batch, _, channels = x.shape
    grad_x = cpu.fresh(torch.empty(x.shape, dtype=cpu.native(x.dtype)))
    problem.grad_x = _tensor(grad_x)
    weight_parts = [torch.empty((batch, weight.shape[1], channels)) for weight in weights]
    bias_parts = [torch.empty((batch, channels)) for _ in biases]
    for k, grad_map in enumerate(grad_maps):
        alive.append(_readable(grad_map.to(cpu.native(x.dtype))))
        problem.grad_out[k] = _tensor(alive[-1])
        problem.grad_weights[k], problem.grad_biases[k] = weight_parts[k].data_ptr(), bias_parts[k].data_ptr()
    cpu.call(cpu.library().rdfa_convolution_backward, problem)
    del alive
    grad_weights = [part.sum(0).T.contiguous() for part in weight_parts]
    grad_biases = [part.sum(0) for part in bias_parts]
    given = zip([*weights, *biases], [*grad_weights, *grad_biases], strict=True)
    return [grad_x.to(x.dtype), *(gradient.to(parameter.dtype) for parameter, gradient in given)]


causal_maps_backward = torch.library.custom_op("rdfa::causal_maps_backward", _gradients, mutates_args=())


@causal_maps_backward.register_fake
def _(grad_maps: list[Tensor], x: Tensor, weights: list[Tensor], biases: list[Tensor], reverse: bool) -> list[Tensor]:
    return [x.new_empty(x.shape), *(parameter.new_empty(parameter.shape) for parameter in [*weights, *biases])]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, weights, biases, ctx.reverse = inputs
    ctx.save_for_backward(x, *weights, *biases)


def _backward(ctx: Any, grad_maps: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of x, of the K weights and of the K biases."""
    x, *parameters = ctx.saved_tensors
    count = len(parameters) // 2
    # The operator refuses second derivatives; what calls a library would leave them out in silence.
    differentiate = causal_maps_backward if torch.is_grad_enabled() or traced(grad_maps[0]) else _gradients
    return differentiate(list(grad_maps), x, parameters[:count], parameters[count:], ctx.reverse)


def _backward_of_operator(ctx: Any, grad_maps: list[Tensor]) -> tuple[Any, ...]:
    grad_x, *gradients = _backward(ctx, grad_maps)
    count = len(gradients) // 2
    return grad_x, gradients[:count], gradients[count:], None


causal_maps_forward.register_autograd(_backward_of_operator, setup_context=_keep)


class CausalMaps(torch.autograd.Function):
    """The operator's maps, without its dispatch, which takes longer than a short sequence's convolutions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, reverse: bool, *parameters: Tensor) -> tuple[Tensor, ...]:
        count = len(parameters) // 2
        weights, biases = list(parameters[:count]), list(parameters[count:])
        maps = _maps(x, weights, biases, reverse)
        _keep(ctx, (x, weights, biases, reverse), maps)
        return tuple(maps)

    @staticmethod
    def backward(ctx: Any, *grad_maps: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, *gradients = _backward(ctx, grad_maps)
        return grad_x, None, *gradients


def _maps_in_pytorch(x: Tensor, weights: list[Tensor], biases: list[Tensor], reverse: bool) -> list[Tensor]:
    """What the compiled kernel's forward pass gives, computed in float32 like there."""
    with torch.autocast(x.device.type, enabled=False):
        maps = [
            F.silu(causal_convolution(x.float(), weight.float(), bias.float(), reverse))
            for weight, bias in zip(weights, biases, strict=True)
        ]
    return [map_k.to(x.dtype).contiguous() for map_k in maps]


def _gradients_in_pytorch(
    grad_maps: list[Tensor], x: Tensor, weights: list[Tensor], biases: list[Tensor], reverse: bool
) -> list[Tensor]:
    """What the compiled kernel's backward pass gives; by hand, since autograd does not reach into an operator."""
    steps, exact = x.shape[1], x.float()
    grad_x, grad_weights, grad_biases = torch.zeros_like(exact), [], []
    with torch.autocast(x.device.type, enabled=False):
        for grad_map, weight, bias in zip(grad_maps, weights, biases, strict=True):
            kernel, history = weight.float(), weight.shape[1] - 1
            before = causal_convolution(exact, kernel, bias.float(), reverse)
            gate = torch.sigmoid(before)
            grad = grad_map.float() * gate * (1 + before * (1 - gate))
            # A step's gradient gathers from where it was read: the same convolution in the other direction.
            grad_x += causal_convolution(grad, kernel, torch.zeros_like(bias, dtype=torch.float32), not reverse)
            padded = F.pad(exact, (0, 0, 0, history) if reverse else (0, 0, history, 0))
            read = [history - j if reverse else j for j in range(history + 1)]
            grad_weights.append(torch.stack([(padded[:, t : t + steps] * grad).sum((0, 1)) for t in read], dim=1))
            grad_biases.append(grad.sum((0, 1)))
    given = zip([*weights, *biases], [*grad_weights, *grad_biases], strict=True)
    return [grad_x.to(x.dtype).contiguous(), *(gradient.to(parameter.dtype) for parameter, gradient in given)]


class _ConvolutionTensor(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("data", "stride_batch", "stride_time")]


class _ConvolutionProblem(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("batch", "channels", "steps", "kernels")],
        *[(name, ctypes.c_int32) for name in ("reverse", "threads", "instruction_set", "bfloat16")],
        *[(name, _ConvolutionTensor) for name in ("x", "grad_x")],
        ("widths", ctypes.c_int64 * MOST_KERNELS),
        *[(name, ctypes.c_void_p * MOST_KERNELS) for name in ("weights", "biases")],
        *[(name, _ConvolutionTensor * MOST_KERNELS) for name in ("out", "grad_out")],
        *[(name, ctypes.c_void_p * MOST_KERNELS) for name in ("grad_weights", "grad_biases")],
    ]


def _problem(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], reverse: bool
) -> tuple[_ConvolutionProblem, list[Tensor]]:
    """The struct, and the tensors that must live for as long as it is used."""
    batch, steps, channels = x.shape
    problem = _ConvolutionProblem(batch=batch, channels=channels, steps=steps, kernels=len(weights))
    alive = [_readable(x.to(cpu.native(x.dtype)))]
    problem.x, problem.bfloat16 = _tensor(alive[0]), int(alive[0].dtype == torch.bfloat16)
    work = x.numel() * sum(weight.shape[1] for weight in weights)
    problem.reverse, problem.threads, problem.instruction_set = reverse, cpu.threads_for(work), cpu.instruction_set()
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        alive += [weight.float().T.contiguous(), bias.float().contiguous()]
        problem.widths[k] = weight.shape[1]
        problem.weights[k], problem.biases[k] = alive[-2].data_ptr(), alive[-1].data_ptr()
    return problem, alive


def _readable(x: Tensor) -> Tensor:
    """x itself if its channels are adjacent, else a copy."""
    return x if x.stride(2) == 1 else x.contiguous()


def _tensor(x: Tensor) -> _ConvolutionTensor:
    return _ConvolutionTensor(x.data_ptr(), x.stride(0), x.stride(1))
