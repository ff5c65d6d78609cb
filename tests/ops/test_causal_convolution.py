"""The parallel causal convolutions: the compiled kernel against a brute-force float64 oracle, and as an operator."""

import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from rdfa.ops import causal_convolution
from rdfa.ops.causal_convolution import MOST_KERNELS, WIDEST, causal_maps
from rdfa.ops.selective_scan import available_backends, backends, cpu, use_backend

needs_kernel = pytest.mark.skipif("cpu" not in available_backends(), reason="the compiled kernel is not built")
WIDTHS = [(1,), (4,), (2, 3, 4), (2, 4, 8), (8, 1, 5, 2), (40,)]
SHAPES = [(1, 1, 3), (2, 7, 16), (3, 33, 20), (2, 100, 135)]


@pytest.fixture(params=["chunked", "cpu-base", "cpu-avx2", "cpu-avx512"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The PyTorch form, and each instruction set of the compiled one."""
    name, _, instruction_set = request.param.partition("-")
    if name not in available_backends() or (instruction_set and instruction_set not in cpu.instruction_sets()):
        pytest.skip(f"{request.param} is not available here")
    with use_backend(name):
        if not instruction_set:
            yield name
        else:
            with cpu.use_instruction_set(instruction_set):
                yield name


def inputs(shape: tuple[int, int, int], widths: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """x as the second quarter of a projection, so not contiguous, then weights, then biases."""
    batch, steps, channels = shape
    draw = torch.Generator().manual_seed(batch * steps * channels)
    x = torch.randn(batch, steps, 4 * channels, generator=draw)[..., channels : 2 * channels]
    weights = [torch.randn(channels, width, generator=draw) for width in widths]
    return [value.to(dtype) for value in (x, *weights, *(torch.randn(channels, generator=draw) for _ in widths))]


def maps(values: list[Tensor], reverse: bool) -> list[Tensor]:
    count = len(values) // 2
    return causal_maps(values[0], values[1 : 1 + count], values[1 + count :], reverse)


def oracle(values: list[Tensor], reverse: bool) -> list[Tensor]:
    """Tap by tap and step by step in float64."""
    x, *parameters = (value.double() for value in values)
    count, steps = len(parameters) // 2, x.shape[1]
    outputs = []
    for weight, bias in zip(parameters[:count], parameters[count:], strict=True):
        width, rows = weight.shape[1], []
        for t in range(steps):
            row = bias.expand(len(x), -1)
            for j in range(width):
                back = width - 1 - j
                source = t + back if reverse else t - back
                if 0 <= source < steps:
                    row = row + weight[:, j] * x[:, source]
            rows.append(row * torch.sigmoid(row))
        outputs.append(torch.stack(rows, dim=1))
    return outputs


def differentiated(function: object, values: list[Tensor], reverse: bool) -> list[Tensor]:
    leaves = [value.detach().requires_grad_() for value in values]
    outputs = function(leaves, reverse)  # type: ignore[operator]
    draw = torch.Generator().manual_seed(9)
    grads = [torch.randn(out.shape, generator=draw).to(out.dtype) for out in outputs]
    return [*(out.detach() for out in outputs), *torch.autograd.grad(outputs, leaves, grads)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_maps_and_all_gradients_equal_the_brute_force_ones(
    backend: str, shape: tuple[int, int, int], widths: tuple[int, ...], reverse: bool
) -> None:
    values = inputs(shape, widths)
    for got, expected in zip(
        differentiated(maps, values, reverse), differentiated(oracle, values, reverse), strict=True
    ):
        assert got.dtype == torch.float32
        assert (got - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs_give_narrow_maps_and_gradients_near_the_exact_ones(dtype: torch.dtype) -> None:
    values = [value.to(dtype).float() for value in inputs((2, 70, 24), (2, 3, 4))]
    narrow = [values[0].to(dtype), *values[1:]]
    for got, expected in zip(differentiated(maps, narrow, False), differentiated(maps, values, False), strict=True):
        assert (got.float() - expected).abs().max() <= 0.02 * expected.abs().max()
    assert maps(narrow, False)[0].dtype == dtype


@needs_kernel
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    values, before = inputs((3, 900, 135), (2, 3, 4)), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(differentiated(maps, values, True))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_kernel
def test_opcheck_accepts_the_operator_and_its_backward() -> None:
    x, *parameters = (value.requires_grad_() for value in inputs((2, 9, 6), (2, 3)))
    weights, biases = parameters[:2], parameters[2:]
    torch.library.opcheck(torch.ops.rdfa.causal_maps.default, (x, weights, biases, True))
    detached = [[value.detach() for value in part] for part in ([x], weights, biases)]
    grads = [torch.randn(2, 9, 6) for _ in weights]
    torch.library.opcheck(
        torch.ops.rdfa.causal_maps_backward.default, (grads, detached[0][0], detached[1], detached[2], True)
    )


@needs_kernel
@pytest.mark.parametrize("reverse", [False, True])
def test_the_operator_and_the_direct_call_are_equal_to_the_bit(reverse: bool) -> None:
    values = [value.requires_grad_() for value in inputs((2, 9, 6), (2, 3))]
    x, weights, biases = values[0], values[1:3], values[3:]
    direct, operator = maps(values, reverse), torch.ops.rdfa.causal_maps(x, weights, biases, reverse)
    assert type(direct[0].grad_fn).__name__ == "CausalMapsBackward"
    assert all(torch.equal(a, b) for a, b in zip(direct, operator, strict=True))
    found = (torch.autograd.grad(torch.stack(list(out)).square().sum(), values) for out in (direct, operator))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


class Maps(nn.Module):
    """A block's convolutions, with parameters of their own."""

    def __init__(self, values: list[Tensor], reverse: bool) -> None:
        super().__init__()
        self.parts, self.reverse = nn.ParameterList(values[1:]), reverse

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack(maps([x, *self.parts], self.reverse))


@needs_kernel
@pytest.mark.parametrize("reverse", [False, True])
def test_a_program_exported_with_the_library_runs_and_learns_without_it(
    reverse: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    values = inputs((2, 33, 20), (8, 1, 5))
    with use_backend("cpu"):
        program = torch.export.export(Maps(values, reverse), (values[0],)).module()
    monkeypatch.setattr(cpu, "load", lambda: "the compiled kernel is not built")
    backends._say_once.cache_clear()

    def exported(leaves: list[Tensor], _: bool) -> list[Tensor]:
        return list(program(leaves[0]).unbind(0))

    def called(leaves: list[Tensor], reverse: bool) -> list[Tensor]:
        return causal_convolution.causal_maps_forward(leaves[0], leaves[1:4], leaves[4:], reverse)

    with torch.no_grad(), caplog.at_level(logging.WARNING):
        for got, expected in zip(exported(values, reverse), oracle(values, reverse), strict=True):
            torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)
    for got, expected in zip(
        differentiated(called, values, reverse), differentiated(oracle, values, reverse), strict=True
    ):
        assert got.dtype == torch.float32
        assert (got - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())
    assert [record.name for record in caplog.records if "not built" in record.getMessage()] == [backends.__name__]
    backends._say_once.cache_clear()


def test_without_the_library_narrow_inputs_give_narrow_maps_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "load", lambda: "the compiled kernel is not built")
    values = inputs((2, 70, 24), (2, 3, 4))
    narrow = [values[0].bfloat16(), *values[1:]]
    leaves = [value.detach().requires_grad_() for value in narrow]
    outputs = causal_convolution.causal_maps_forward(leaves[0], leaves[1:4], leaves[4:], False)
    gradients = torch.autograd.grad(outputs, leaves, [torch.ones_like(out) for out in outputs])
    assert {out.dtype for out in outputs} == {torch.bfloat16}
    assert [gradient.dtype for gradient in gradients] == [value.dtype for value in narrow]


def test_what_the_kernel_cannot_take_goes_the_other_way() -> None:
    many = inputs((1, 5, 4), (2,) * (MOST_KERNELS + 1))
    wide = inputs((1, 5, 4), (WIDEST + 1,))
    for values in (many, wide, inputs((1, 5, 4), (2, 3), torch.float64)):
        for got, expected in zip(maps(values, False), oracle(values, False), strict=True):
            torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)
