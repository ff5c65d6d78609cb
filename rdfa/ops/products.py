"""Float32 matrix products on a CPU: by the faster of PyTorch's two libraries, if it is as exact here.

PyTorch multiplies float32 matrices by MKL, which does not use the widest instructions of every maker's processors.
Allowing bfloat16 products (`torch.backends.mkldnn.matmul.fp32_precision`) hands them to oneDNN, which keeps full
float32 unless the processor has tiles for bfloat16 (AMX). Which of the two happens is probed, not assumed.
"""

from functools import cache

import torch

EXACT = 1e-5
"""Largest relative error of a float32 product; inputs rounded to bfloat16 give 1e-3 and more."""

_PROBED = ((256, 512, 1024), (1000, 64, 512), (32, 2048, 16))
"""(rows, inner, columns) of products as a detector has them: large, with a short inner side, skinny."""


def use_fastest_exact_products() -> str:
    """Choose the library for this process's float32 matrix products on the CPU; returns which, and why, in one line."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "PyTorch's default: it is built without oneDNN"
    settings = getattr(torch.backends.mkldnn, "matmul", None)
    if settings is None:
        return "PyTorch's default: before torch 2.9 there is no choice"
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    error = _largest_error()
    if error > EXACT:
        settings.fp32_precision = before
        return f"PyTorch's default: oneDNN would round to bfloat16 on this processor (relative error {error:.0e})"
    return f"oneDNN, in full float32 (relative error {error:.0e})"


@cache
def _largest_error() -> float:
    return max(_error(*shape) for shape in _PROBED)


def _error(rows: int, inner: int, columns: int) -> float:
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(rows, inner, generator=draw), torch.randn(inner, columns, generator=draw)
    exact = a.double() @ b.double()
    return float(((a @ b) - exact).abs().max() / exact.abs().max())
