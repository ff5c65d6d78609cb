"""The hand-written backward of the released code, as an option: `model.block.gradients: official`.

The released code (github.com/lsy0882/RDFA-S6 at c5caaea, `MambaInnerFnNoOutProj.backward`) computes the forward pass
correctly, but not its gradient. Written down here from reading it, so that both trainings can be compared. Within one
direction, with kernels k = 0 .. K-1, maps u_k = SiLU(conv_k(x)), [s_k, B_k, C_k] = W_x u_k, delta_k = W_dt s_k,
B = B_0, C = C_0 and the scans' own gradients du_k, ddelta_k, dB, dC, dz_k:

    conv weights, biases   nothing is returned: they stay as initialised (optimisers skip them, decay included)
    dx                     through conv_{K-1} alone, from du_{K-1} alone; the way W_x -> u -> x is left out
    dz                     dz_{K-1} alone
    dW_dt                  sum_k ddelta_k s'^T,  where s' = W_x sum_k du_k stands in the place of s_k
    dW_x                   [sum_k W_dt^T ddelta_k, dB, dC] u_0^T, u_0 in the place of u_k
    dA, dD, ddt_bias       right

The first two and the third are cuts, made with `detach` where `rdfa.models.s6` builds the maps and calls the scan; the
next two are `projections` below. Both directions are sums over steps, so that handling them one by one gives what the
released code computes for both at once.

Not emulated: for sequences of more than 2048 steps the released code starts the later chunks of every kernel's backward
scan from the last kernel's states. There is nothing to compare such an emulation with.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Projected(NamedTuple):
    """What the scans of one direction read."""

    maps: tuple[Tensor, ...]
    """K times (B, T, D): the maps themselves, by way of which their gradients reach `projections`."""
    deltas: tuple[Tensor, ...]
    """K times (B, T, D), before bias and softplus."""
    b: Tensor
    """(B, T, N), the first kernel's."""
    c: Tensor
    """(B, T, N), the first kernel's."""


def projections(maps: Sequence[Tensor], x_weight: Tensor, dt_weight: Tensor) -> Projected:
    """Project K maps to the parameters of their scans, with the released code's gradients.

    Args:
        maps: K times (B, T, D).
        x_weight: (R + 2N, D), rows for the step, B and C.
        dt_weight: (D, R).
    """
    count = len(maps)
    outputs = _Projections.apply(x_weight, dt_weight, *maps)  # type: ignore[no-untyped-call]
    return Projected(outputs[:count], outputs[count : 2 * count], *outputs[2 * count :])


class _Projections(torch.autograd.Function):
    """Forward: W_x and W_dt of every map. Backward: see above; its node sees the gradients of all scans together."""

    @staticmethod
    def forward(ctx: Any, x_weight: Tensor, dt_weight: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x_weight, dt_weight, maps[0])
        rank, states = dt_weight.shape[1], (x_weight.shape[0] - dt_weight.shape[1]) // 2
        projected = [F.linear(u, x_weight) for u in maps]
        deltas = [F.linear(part[..., :rank], dt_weight) for part in projected]
        b, c = projected[0][..., rank : rank + states], projected[0][..., rank + states :]
        return (*(u.view_as(u) for u in maps), *deltas, b.clone(), c.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_weight, dt_weight, first = ctx.saved_tensors
        count, rank = len(gradients) // 2 - 1, dt_weight.shape[1]
        dtype = x_weight.dtype  # under autocast the maps are narrower than the weights
        d_map, d_delta = (_sum(part).to(dtype) for part in (gradients[:count], gradients[count : 2 * count]))
        mistaken_step = d_map @ x_weight[:rank].T
        d_dt_weight = torch.einsum("btd,btr->dr", d_delta, mistaken_step)
        d_projected = torch.cat([d_delta @ dt_weight, *(part.to(dtype) for part in gradients[2 * count :])], dim=2)
        d_x_weight = torch.einsum("btp,btd->pd", d_projected, first.to(dtype))
        return (d_x_weight, d_dt_weight, *[None] * (count - 1), gradients[count - 1])


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors)).sum(0)
