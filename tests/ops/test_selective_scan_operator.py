"""The scan as a PyTorch operator: tracing, compilation, export, autocast and checkpointing accept it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from rdfa.ops.selective_scan import available_backends, selective_scan, use_backend
from rdfa.ops.selective_scan.build import find_compiler

OPERATOR = torch.ops.rdfa


class Block(nn.Module):
    """What a model does around a scan: projections from one input, channel-last, no copies."""

    def __init__(self, reverse: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.reverse = reverse
        self.project = nn.Linear(12, 12 * 3 + 4 * 2)
        self.A = nn.Parameter(-torch.rand(12, 4) - 0.1)
        self.D = nn.Parameter(torch.randn(12))
        self.bias = nn.Parameter(torch.randn(12))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        u, delta, z, B, C = self.project(x).mT.split([12, 12, 12, 4, 4], dim=1)
        return selective_scan(u, delta, self.A, B, C, self.D, z, self.bias, True, self.reverse, lengths)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 40, 12, generator=torch.Generator().manual_seed(1)), torch.tensor([40, 21])


def gradients(model: nn.Module, out: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(out.float().square().sum(), list(model.parameters())))


def arguments(dtype: torch.dtype, optional: bool) -> tuple[Tensor | None, ...]:
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    u, delta, z, B, C = (normal(2, 40, rows).to(dtype).mT.requires_grad_() for rows in (12, 12, 12, 4, 4))
    A, D, bias = (-normal(12, 4).abs()).requires_grad_(), normal(12).requires_grad_(), normal(12).requires_grad_()
    lengths = torch.tensor([40, 7])
    return (u, delta, A, B, C, D, z, bias, lengths) if optional else (u, delta, A, B, C, None, None, None, None)


@pytest.mark.parametrize("backend", ["chunked", "cpu"])
@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck_accepts_the_operator_and_its_backward(dtype: torch.dtype, optional: bool, backend: str) -> None:
    tensors = arguments(dtype, optional)
    torch.library.opcheck(OPERATOR.selective_scan.default, (*tensors, True, optional, True, backend))
    detached = [None if x is None else x.detach() for x in tensors]
    out, states = OPERATOR.selective_scan(*detached, True, optional, True, backend)
    torch.library.opcheck(OPERATOR.selective_scan_backward.default, (out, states, *detached, True, optional, backend))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_model_is_traced_without_graph_breaks(batch: tuple[Tensor, Tensor], reverse: bool) -> None:
    model = Block(reverse)
    traced = torch.compile(model, backend="aot_eager", fullgraph=True)
    expected, out = model(*batch), traced(*batch)
    assert torch.equal(out, expected)
    for a, b in zip(gradients(model, out), gradients(model, expected), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(find_compiler() is None, reason="torch.compile's default backend needs a C++ compiler")
def test_a_compiled_model_has_equal_outputs_and_gradients(batch: tuple[Tensor, Tensor]) -> None:
    model = Block()
    out, expected = torch.compile(model, fullgraph=True)(*batch), model(*batch)
    assert torch.allclose(out, expected, atol=1e-5)
    for a, b in zip(gradients(model, out), gradients(model, expected), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_an_exported_model_scans_other_lengths(batch: tuple[Tensor, Tensor]) -> None:
    steps = torch.export.Dim("steps", min=2, max=4096)
    model = Block().eval().requires_grad_(False)
    program = torch.export.export(model, batch, dynamic_shapes={"x": {1: steps}, "lengths": None})
    longer = torch.randn(2, 77, 12), torch.tensor([77, 30])
    assert torch.allclose(program.module()(*longer), model(*longer), atol=1e-6)


def test_under_autocast_inputs_are_bfloat16_and_parameters_get_float32_gradients(batch: tuple[Tensor, Tensor]) -> None:
    model = Block()
    exact = model(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(*batch)
    assert out.dtype == torch.bfloat16
    assert (out - exact).abs().max() < 0.05 * exact.abs().max()
    for a, b in zip(gradients(model, out), gradients(model, exact), strict=True):
        assert a.dtype == torch.float32
        assert (a - b).abs().max() < 0.05 * b.abs().max()


def test_checkpointing_gives_the_same_gradients(batch: tuple[Tensor, Tensor]) -> None:
    model = Block()
    plain = gradients(model, model(*batch))
    again = gradients(model, checkpoint(model, *batch, use_reentrant=False))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_inputs_that_need_no_gradient_may_be_mixed_with_those_that_do(batch: tuple[Tensor, Tensor]) -> None:
    model = Block()
    expected = gradients(model, model(*batch))[0]
    model.project.requires_grad_(False)
    (got,) = torch.autograd.grad(model(*batch).square().sum(), [model.A])
    assert torch.equal(got, expected)


@pytest.mark.parametrize("backend", ["chunked", "cpu"])
@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operator_and_the_direct_call_are_equal_to_the_bit(
    dtype: torch.dtype, optional: bool, backend: str
) -> None:
    tensors = arguments(dtype, optional)
    direct = selective_scan_by(tensors, backend)
    operator, _ = OPERATOR.selective_scan(*tensors, True, True, True, backend)
    assert torch.equal(direct, operator)
    leaves = [x for x in tensors[:8] if x is not None]
    found = (torch.autograd.grad(out.float().square().sum(), leaves) for out in (direct, operator))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_whoever_traces_gets_the_operator_and_everybody_else_the_direct_call() -> None:
    tensors = arguments(torch.float32, True)
    seen = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(operation)
            return operation(*args, **(kwargs or {}))

    with Watching():
        watched = selective_scan_by(tensors, "chunked")
    assert OPERATOR.selective_scan.default in seen
    assert torch.equal(watched, selective_scan_by(tensors, "chunked"))
    assert type(selective_scan_by(tensors, "chunked").grad_fn).__name__ == "SelectiveScanBackward"


def test_second_derivatives_are_refused() -> None:
    tensors = arguments(torch.float32, True)
    (gradient,) = torch.autograd.grad(selective_scan_by(tensors, "chunked").sum(), tensors[0], create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


def selective_scan_by(tensors: tuple[Tensor | None, ...], backend: str) -> Tensor:
    if backend not in available_backends():
        pytest.skip("the compiled kernel is not built")
    with use_backend(backend):
        return selective_scan(*tensors[:8], delta_softplus=True, reverse=True, lengths=tensors[8])  # type: ignore[arg-type]
