"""Weighted sums of a table's rows: the product of a fixed sparse matrix and a dense table, with its gradient.

Both directions are gathers (PyTorch's embedding bags), each row's sum in one fixed order: nothing is scattered, so that
the result repeats to the bit, and nothing of the size of the dense matrix is ever made.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F


class SparseRows(nn.Module):
    """A sparse matrix (rows, columns) in compressed rows, and its transpose; moves with its owner, never saved."""

    forward_columns: Tensor
    forward_starts: Tensor
    forward_weights: Tensor
    backward_columns: Tensor
    backward_starts: Tensor
    backward_weights: Tensor

    def __init__(self, row: NDArray[Any], column: NDArray[Any], weight: NDArray[Any], shape: tuple[int, int]) -> None:
        """From entries (n,); those of the same place are added.

        Args:
            weight: kept in float64, used in the table's precision.
        """
        super().__init__()
        place, at = np.unique(row.astype(np.int64) * shape[1] + column, return_inverse=True)
        total = np.bincount(at, weights=weight, minlength=len(place))
        self.shape = shape
        self._keep("forward", place // shape[1], place % shape[1], total, shape[0])
        order = np.argsort(place % shape[1], kind="stable")
        self._keep("backward", (place % shape[1])[order], (place // shape[1])[order], total[order], shape[1])

    def _keep(self, name: str, row: NDArray[Any], column: NDArray[Any], weight: NDArray[Any], rows: int) -> None:
        starts = np.searchsorted(row, np.arange(rows))
        for part, values in (("columns", column), ("starts", starts), ("weights", weight)):
            self.register_buffer(f"{name}_{part}", torch.tensor(values), persistent=False)

    def forward(self, table: Tensor) -> Tensor:
        """Sums of rows: table (columns, E) to (rows, E), at least in float32; a row without entries is 0."""
        wide = table.to(torch.promote_types(table.dtype, torch.float32)).contiguous()
        ways = [
            (getattr(self, f"{name}_columns"), getattr(self, f"{name}_starts"), getattr(self, f"{name}_weights"))
            for name in ("forward", "backward")
        ]
        summed: Tensor = _Product.apply(wide, *ways[0], *ways[1])  # type: ignore[no-untyped-call]
        return summed


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, *ways: Tensor) -> Tensor:
        ctx.save_for_backward(*ways[3:])
        return _sums(table, ways[:3])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _sums(gradients[0].contiguous(), ctx.saved_tensors), *[None] * 6


def _sums(table: Tensor, way: Sequence[Tensor]) -> Tensor:
    columns, starts, weights = way
    with torch.autocast(table.device.type, enabled=False):
        return F.embedding_bag(columns, table, starts, mode="sum", per_sample_weights=weights.to(table.dtype))
