"""The selective scan in plain PyTorch, one step at a time: the definition that every backend is tested against."""

import torch
import torch.nn.functional as F
from torch import Tensor

from rdfa.ops.selective_scan.layout import check_lengths, state_dtype, valid_steps


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
    """`rdfa.ops.selective_scan.selective_scan` by a loop over time; memory O(B D T N), gradients by autograd.

    The steps come from `unbind`, whose backward is one stack: indexing in the loop instead would
    cost a full-size zero tensor per step.
    """
    dtype, out_dtype = state_dtype(u), u.dtype
    u, delta, A, B, C = (x.to(dtype) for x in (u, delta, A, B, C))
    if lengths is not None:
        check_lengths(lengths, u.shape[-1])
        valid = valid_steps(lengths, u.shape[-1])
        u, delta, B, C = (x.masked_fill(~valid, 0) for x in (u, delta, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.to(dtype).unsqueeze(-1)
    if delta_softplus:
        delta = F.softplus(delta)

    decay = torch.exp(torch.einsum("bdt,dn->bdtn", delta, A))
    driven = torch.einsum("bdt,bnt->bdtn", delta * u, B)
    h = u.new_zeros(u.shape[0], u.shape[1], A.shape[1])
    outputs = []
    steps = list(zip(decay.unbind(2), driven.unbind(2), C.unbind(2), strict=True))
    for decay_t, driven_t, C_t in reversed(steps) if reverse else steps:
        h = decay_t * h + driven_t
        outputs.append(torch.einsum("bdn,bn->bd", h, C_t))
    y = torch.stack(outputs[::-1] if reverse else outputs, dim=2)

    if D is not None:
        y = y + D.to(dtype).unsqueeze(-1) * u
    if z is not None:
        y = y * F.silu(z.to(dtype))
    if lengths is not None:
        y = y.masked_fill(~valid, 0)
    return y.to(out_dtype)
