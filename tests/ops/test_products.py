"""Float32 matrix products stay float32, whichever library makes them."""

from collections.abc import Iterator

import pytest
import torch

from rdfa.ops import products


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """The choice is made once per process, for the whole process."""
    before = torch.get_float32_matmul_precision()
    products._largest_error.cache_clear()
    yield
    torch.set_float32_matmul_precision(before)
    products._largest_error.cache_clear()


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 300, 5), (96, 128, 512), (512, 4608, 64), (4608, 32, 512)])
def test_products_have_float32_accuracy_after_the_choice(shape: tuple[int, int, int]) -> None:
    products.use_fastest_exact_products()
    rows, inner, columns = shape
    a, b = torch.randn(rows, inner), torch.randn(columns, inner)
    exact = a.double() @ b.double().T
    assert (a @ b.T - exact).abs().max() <= products.EXACT * exact.abs().max().clamp(min=1)


def test_a_library_that_rounds_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(products, "_error", lambda *shape: 2e-3)
    assert "would round to bfloat16" in products.use_fastest_exact_products()
    assert torch.get_float32_matmul_precision() == before
