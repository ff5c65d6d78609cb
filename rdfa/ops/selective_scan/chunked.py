"""The selective scan in PyTorch without a compiler: chunks of 32 steps, time first, hand-written backward.

Within a chunk everything but the recurrence itself is one operation over all its steps, and the
recurrence is one fused multiply-add per step over a dense (B, N, D) block. Only the states between
chunks are kept for the backward, which runs each chunk forward again.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rdfa.ops.selective_scan.layout import CHUNK, Gradients, boundary_states, like, state_dtype, valid_steps


def forward(
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
) -> tuple[Tensor, Tensor]:
    """Output (B, D, T) in u's dtype and memory order, and the boundary states (empty unless kept)."""
    with torch.autocast(u.device.type, enabled=False):
        scan = _Scan.of(u, delta, A, B, D, delta_bias, lengths, delta_softplus, reverse)
        out, states = like(u), boundary_states(u, A.shape[1], keep_states)
        decay, h_all, h = scan.buffer(), scan.buffer(), scan.state()
        for index, where in enumerate(scan.chunks()):
            if keep_states:
                states[:, index] = h
            chunk = scan.chunk(where)
            h_chunk = chunk.run(scan.rates, h, decay, h_all)
            y = scan.output(chunk.u, scan.cut(C, where), h_chunk)
            scan.put(out, where, y if z is None else y * F.silu(scan.cut(z, where)))
            h = h_chunk[-1].clone()
    return out, states


def backward(
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
) -> Gradients:
    """Gradients of u, delta, A, B, C, D, z, delta_bias (z's is empty without a z)."""
    with torch.autocast(u.device.type, enabled=False):
        scan = _Scan.of(u, delta, A, B, D, delta_bias, lengths, delta_softplus, reverse)
        decay, h_all, adjoint, carried = scan.buffer(), scan.buffer(), scan.buffer(), scan.state()
        grad_u, grad_delta, grad_B, grad_C = (like(x) for x in (u, delta, B, C))
        grad_z = u.new_empty(0) if z is None else like(z)
        grad_A, (grad_D, grad_bias) = torch.zeros_like(scan.rates), scan.rates.new_zeros(2, u.shape[1])
        for index, where in reversed(list(enumerate(scan.chunks()))):
            chunk, C_chunk, grad_y = scan.chunk(where), scan.cut(C, where), scan.cut(grad_out, where)
            before = states[:, index]
            h = chunk.run(scan.rates, before, decay, h_all)
            if z is not None:
                gate = scan.cut(z, where)
                sigmoid = torch.sigmoid(gate)
                grad_gate = grad_y * scan.output(chunk.u, C_chunk, h) * sigmoid * (1 + gate * (1 - sigmoid))
                scan.put(grad_z, where, grad_gate)
                grad_y = grad_y * gate * sigmoid
            g, carried = chunk.run_adjoint(C_chunk, grad_y, carried, decay, adjoint)

            scan.put(grad_C, where, torch.matmul(h, grad_y.unsqueeze(-1)).squeeze(-1))
            scan.put(grad_B, where, torch.matmul(g, (chunk.dt * chunk.u).unsqueeze(-1)).squeeze(-1))
            sum_B = torch.matmul(chunk.B.unsqueeze(2), g).squeeze(2)
            rate_terms = decay[: len(h)].mul_(g)  # grad_h exp(dt A) h_before
            rate_terms[1:].mul_(h[:-1])
            rate_terms[0].mul_(before)
            grad_A += torch.mul(rate_terms, chunk.dt.unsqueeze(2), out=h).sum((0, 1))
            grad_dt = torch.mul(rate_terms, scan.rates, out=h).sum(2).addcmul_(chunk.u, sum_B)
            if delta_softplus:
                grad_dt = grad_dt * torch.sigmoid(chunk.raw_delta)
            grad_bias += grad_dt.sum((0, 1))
            grad_D += (grad_y * chunk.u).sum((0, 1))
            scan.put(grad_delta, where, grad_dt)
            scan.put(grad_u, where, chunk.dt * sum_B if scan.skip is None else chunk.dt * sum_B + scan.skip * grad_y)
    return grad_u, grad_delta, grad_A.t().contiguous(), grad_B, grad_C, grad_D, grad_z, grad_bias


@dataclass(frozen=True)
class _Chunk:
    """Inputs of one chunk; time is first and in the order of the scan."""

    u: Tensor  # (steps, B, D)
    raw_delta: Tensor  # (steps, B, D), with its bias
    dt: Tensor  # (steps, B, D)
    B: Tensor  # (steps, B, N)

    def run(self, rates: Tensor, h: Tensor, decay: Tensor, h_all: Tensor) -> Tensor:
        """The states (steps, B, N, D) after each step, in `h_all`; fills `decay` with exp(dt A)."""
        steps = len(self.u)
        decay, h_all = decay[:steps], h_all[:steps]
        torch.mul(self.dt.unsqueeze(2), rates, out=decay).exp_()
        torch.mul((self.dt * self.u).unsqueeze(2), self.B.unsqueeze(3), out=h_all)
        for decay_t, h_t in zip(decay.unbind(0), h_all.unbind(0), strict=True):
            h = h_t.addcmul_(decay_t, h)
        return h_all

    def run_adjoint(
        self, C: Tensor, grad_y: Tensor, carried: Tensor, decay: Tensor, adjoint: Tensor
    ) -> tuple[Tensor, Tensor]:
        """dL/dh of each step, in `adjoint`, and what the first step hands to the step before it."""
        steps = len(self.u)
        g = torch.mul(C.unsqueeze(3), grad_y.unsqueeze(2), out=adjoint[:steps])
        g[-1] += carried
        g_t, decay_t = g.unbind(0), decay[:steps].unbind(0)
        for t in range(steps - 2, -1, -1):
            g_t[t].addcmul_(decay_t[t + 1], g_t[t + 1])
        return g, decay_t[0] * g_t[0]


@dataclass(frozen=True)
class _Scan:
    """A scan's inputs, cut into chunks on demand."""

    u: Tensor
    delta: Tensor
    B: Tensor
    rates: Tensor  # A transposed, (N, D)
    skip: Tensor | None  # D
    delta_bias: Tensor | None
    valid: Tensor | None  # (B, 1, T)
    softplus: bool
    reverse: bool

    @classmethod
    def of(
        cls,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        D: Tensor | None,
        delta_bias: Tensor | None,
        lengths: Tensor | None,
        softplus: bool,
        reverse: bool,
    ) -> "_Scan":
        dtype = state_dtype(u)
        skip, bias = (None if x is None else x.to(dtype) for x in (D, delta_bias))
        valid = None if lengths is None else valid_steps(lengths, u.shape[-1])
        return cls(u, delta, B, A.to(dtype).t().contiguous(), skip, bias, valid, softplus, reverse)

    def state(self) -> Tensor:
        """The state before the first step: (B, N, D) zeros."""
        return self.rates.new_zeros(len(self.u), *self.rates.shape)

    def buffer(self) -> Tensor:
        """Room for a chunk of states, (32, B, N, D)."""
        return self.rates.new_empty(min(CHUNK, self.u.shape[-1]), len(self.u), *self.rates.shape)

    def chunks(self) -> list[slice]:
        """Where each chunk lies in time, in the order of the scan; only the last one may be short."""
        steps = self.u.shape[-1]
        starts = range(0, steps, CHUNK)
        if self.reverse:
            return [slice(max(steps - start - CHUNK, 0), steps - start) for start in starts]
        return [slice(start, min(start + CHUNK, steps)) for start in starts]

    def cut(self, x: Tensor, where: slice) -> Tensor:
        """(steps, B, rows): a chunk of a (B, rows, T) tensor, 0 where it is not valid."""
        part = x[..., where].to(self.rates.dtype)
        if self.valid is not None:
            part = torch.where(self.valid[..., where], part, 0)
        part = part.permute(2, 0, 1)
        return part.flip(0) if self.reverse else part.contiguous()

    def put(self, target: Tensor, where: slice, part: Tensor) -> None:
        """Write (steps, B, rows) into a chunk of a (B, rows, T) tensor: the inverse of `cut`."""
        part = (part.flip(0) if self.reverse else part).permute(1, 2, 0)
        target[..., where] = part if self.valid is None else torch.where(self.valid[..., where], part, 0)

    def chunk(self, where: slice) -> _Chunk:
        raw = self.cut(self.delta, where)
        if self.delta_bias is not None:
            raw = raw + self.delta_bias
        dt = F.softplus(raw) if self.softplus else raw
        if self.valid is not None:
            valid = self.valid[..., where].permute(2, 0, 1)
            dt = torch.where(valid.flip(0) if self.reverse else valid, dt, 0)
        return _Chunk(self.cut(self.u, where), raw, dt, self.cut(self.B, where))

    def output(self, u: Tensor, C: Tensor, h: Tensor) -> Tensor:
        """C h + D u, (steps, B, D), before the gate."""
        y = torch.matmul(C.unsqueeze(2), h).squeeze(2)
        return y if self.skip is None else y.addcmul_(self.skip, u)
