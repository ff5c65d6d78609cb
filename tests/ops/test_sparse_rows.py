"""Weighted sums of rows: equal to the product with the dense matrix, forward and backward, and repeatable."""

import numpy as np
import pytest
import torch

from rdfa.ops.sparse_rows import SparseRows

ROWS, COLUMNS = 7, 5


def drawn(entries: int = 40) -> tuple[SparseRows, torch.Tensor]:
    """A matrix with empty rows at both ends, entries of one place more than once, and the same dense."""
    draw = np.random.default_rng(0)
    row, column = draw.integers(1, ROWS - 1, entries), draw.integers(0, COLUMNS - 1, entries)
    weight = draw.normal(size=entries)
    dense = torch.zeros(ROWS, COLUMNS, dtype=torch.float64)
    for r, c, w in zip(row, column, weight, strict=True):
        dense[r, c] += w
    return SparseRows(row, column, weight, (ROWS, COLUMNS)), dense


@pytest.mark.parametrize("entries", [0, 1, 40])
def test_the_sums_and_their_gradient_are_those_of_the_dense_product(entries: int) -> None:
    rows, dense = drawn(entries)
    table = torch.randn(COLUMNS, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(ROWS, 3, dtype=torch.float64)
    (found,) = torch.autograd.grad((rows(table) * weights).sum(), table)
    torch.testing.assert_close(rows(table), dense @ table)
    torch.testing.assert_close(found, dense.T @ weights)


def test_the_gradient_is_that_of_numerical_differences() -> None:
    rows, _ = drawn()
    assert torch.autograd.gradcheck(rows, torch.randn(COLUMNS, 2, dtype=torch.float64, requires_grad=True))


def test_narrow_tables_are_summed_in_float32_whatever_autocast_says() -> None:
    rows, dense = drawn()
    table = torch.randn(COLUMNS, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = rows(table)
    torch.testing.assert_close(found, (dense @ table.double()).float())


def test_the_matrix_is_not_saved() -> None:
    assert drawn()[0].state_dict() == {}
