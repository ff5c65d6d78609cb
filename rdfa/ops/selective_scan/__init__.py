"""The selective scan (S6, Mamba): one function, several backends.

Read `reference.py` for the definition, `backends.py` for the choice between backends,
`chunked.py` for the form that needs no compiler, `kernel/` and `cpu.py` for the compiled one,
`cuda.py` for mamba-ssm, `custom_op.py` for what torch.compile sees of the others.
"""

from collections.abc import Sequence

from torch import Tensor

from rdfa.ops.selective_scan import backends, cuda, custom_op, reference
from rdfa.ops.selective_scan.backends import available_backends, describe, use_backend
from rdfa.ops.selective_scan.layout import Scan

__all__ = ["Scan", "available_backends", "describe", "selective_scan", "selective_scans", "use_backend"]


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
    """Scan a sequence with input-dependent (selective) state-space parameters.

    For each channel d and state n, from h = 0:

        dt_t   = softplus(delta_t + delta_bias)          (or delta_t + delta_bias)
        h_t[n] = exp(dt_t A[n]) h_{t-1}[n] + dt_t B_t[n] u_t
        y_t    = sum_n C_t[n] h_t[n] + D u_t
        out_t  = y_t silu(z_t)                           (or y_t)

    Source: Gu & Dao 2023, "Mamba" (arXiv 2312.00752), algorithm 2; the same function as
    `selective_scan_ref` of the mamba-ssm package.

    Args:
        u: input, (B, D, T). Any strides; a channel-last tensor (a transposed (B, T, D)) is
            the fastest and gives a channel-last output.
        delta: step sizes, (B, D, T).
        A: decay rates, (D, N), real, as a rule negative.
        B: input maps, (B, N, T).
        C: output maps, (B, N, T).
        D: skip connection, (D,).
        z: gate, (B, D, T).
        delta_bias: added to delta, (D,).
        delta_softplus: pass delta + delta_bias through softplus.
        reverse: scan from the last step to the first; without flipped copies, but for mamba-ssm on CUDA, which
            scans in one direction only.
        lengths: integers, (B,), from 0 to T: steps at and beyond a length do not enter the state,
            their output is 0, and they receive no gradient. None: all T steps are valid.

    Returns:
        (B, D, T) in the dtype and memory order of u. States are float32 (float64 if u is).

    Raises:
        ValueError: a shape or dtype that does not fit, naming it; on a CPU a length outside 0 to T.
        RdfaError: the backend asked for by `use_backend` or RDFA_SCAN_BACKEND cannot run this.
    """
    _check(u, delta, A, B, C, D, z, delta_bias, lengths)
    backend = backends.choose(u.device.type, u.dtype)
    if backend in ("reference", "cuda"):
        scan = reference.selective_scan if backend == "reference" else cuda.selective_scan
        return scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, lengths)
    others = (delta, A, B, C, D, z, delta_bias)
    return custom_op.selective_scan(u, others, lengths, delta_softplus, reverse, backend)


def selective_scans(
    scans: Sequence[Scan],
    A: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    lengths: Tensor | None = None,
) -> list[Tensor]:
    """Several scans with the same A, D and delta_bias: the kernels and directions of an aggregated block.

    Each output equals `selective_scan`'s. On CUDA they are one launch; elsewhere they follow one another.

    Args:
        scans: all with u of the same shape and dtype, and all with a z or all without.  lengths: of every scan.

    Raises:
        ValueError, RdfaError: as `selective_scan`; u's shapes or dtypes differ; some scans alone have a z.
    """
    if len({(scan.u.shape, scan.u.dtype) for scan in scans}) != 1:
        raise ValueError("selective_scans: every scan needs a u of the same shape and dtype")
    gates = sum(scan.z is not None for scan in scans)
    if gates not in (0, len(scans)):
        raise ValueError(f"selective_scans: every scan needs a gate z or none, but {gates} of {len(scans)} have one")
    for u, delta, B, C, z, _ in scans:
        _check(u, delta, A, B, C, D, z, delta_bias, lengths)
    if backends.choose(scans[0].u.device.type, scans[0].u.dtype) == "cuda":
        return cuda.selective_scans(scans, A, D, delta_bias, delta_softplus, lengths)
    return [
        selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, lengths)
        for u, delta, B, C, z, reverse in scans
    ]


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
) -> None:
    if u.dim() != 3 or A.dim() != 2:
        raise ValueError(f"selective_scan: u must be (B, D, T) and A (D, N), not {tuple(u.shape)}, {tuple(A.shape)}")
    if 0 in u.shape or 0 in A.shape:
        raise ValueError(f"selective_scan: nothing to scan in u {tuple(u.shape)}, A {tuple(A.shape)}")
    batch, channels, steps = u.shape
    states = A.shape[1]
    expected = {
        "delta": (delta, (batch, channels, steps)),
        "A": (A, (channels, states)),
        "B": (B, (batch, states, steps)),
        "C": (C, (batch, states, steps)),
        "D": (D, (channels,)),
        "z": (z, (batch, channels, steps)),
        "delta_bias": (delta_bias, (channels,)),
        "lengths": (lengths, (batch,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise ValueError(f"selective_scan: {name} must be {shape} to fit u, not {tuple(tensor.shape)}")
        if tensor.device != u.device:
            raise ValueError(f"selective_scan: {name} is on {tensor.device}, u on {u.device}")
        if tensor.is_floating_point() == (name == "lengths"):
            raise ValueError(f"selective_scan: {name} cannot be {tensor.dtype}")
