"""Every backend of the selective scan against the float64 sequential reference, in one test set."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from rdfa.ops.selective_scan import available_backends, chunked, cpu, selective_scan, use_backend
from tests.comparisons import Compare, Golden

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
TIMED = ("u", "delta", "B", "C", "z")
SHARED = ("A", "B", "C", "D", "delta_bias")
INSTRUCTION_SETS = ("base", "avx2", "avx512")
BACKENDS = ("reference", "chunked", *(f"cpu-{name}" for name in INSTRUCTION_SETS), "cuda")
TOLERANCE = 1e-5
BLOCK = "rdfa_small/fabs6_block.npz"

Problem = dict[str, Any]


class Backend(NamedTuple):
    name: str
    device: str


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each backend, and each instruction set of the compiled one; all scans of the test run on it."""
    name, _, instruction_set = request.param.partition("-")
    if name not in available_backends():
        pytest.skip(f"the backend {name!r} is not available here")
    with ExitStack() as stack:
        if instruction_set:
            if instruction_set not in cpu.instruction_sets():
                pytest.skip(f"this processor has no {instruction_set}")
            stack.enter_context(cpu.use_instruction_set(instruction_set))
        stack.enter_context(use_backend(name))
        yield Backend(name, "cuda" if name == "cuda" else "cpu")


def make_problem(shape: tuple[int, int, int, int], optional: bool = True, channel_last: bool = False) -> Problem:
    """Inputs as a model has them, from a fixed seed, in float32."""
    batch, channels, steps, states = shape
    draw = torch.Generator().manual_seed(hash(shape) % 2**31)

    def timed(rows: int) -> Tensor:
        x = torch.randn(batch, rows, steps, generator=draw)
        return x.transpose(1, 2).contiguous().transpose(1, 2) if channel_last else x

    def vector() -> Tensor:
        return torch.randn(channels, generator=draw)

    A = -torch.rand(channels, states, generator=draw) * states - 0.1
    problem = {"u": timed(channels), "delta": timed(channels), "A": A, "B": timed(states), "C": timed(states)}
    if optional:
        problem |= {"D": vector(), "z": timed(channels), "delta_bias": vector() - 2, "delta_softplus": True}
    else:
        problem["delta"] = problem["delta"].abs() * 0.2
    return problem


def scan_and_differentiate(
    problem: Problem, device: str = "cpu", dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """The output and the gradient of every tensor for a fixed random gradient of the output."""
    inputs = {
        k: v.to(device, dtype if v.is_floating_point() else None) if torch.is_tensor(v) else v
        for k, v in problem.items()
    }
    leaves = {name: inputs[name].detach().requires_grad_() for name in NAMES if name in inputs}
    out = selective_scan(**inputs | leaves)
    draw = torch.Generator().manual_seed(1)
    grad_out = torch.randn(out.shape, generator=draw).to(out)
    gradients = torch.autograd.grad(out, list(leaves.values()), grad_out)
    return {"out": out.detach(), **dict(zip(leaves, gradients, strict=True))}


def to(problem: Problem, device: str) -> Problem:
    return {name: x.to(device) if torch.is_tensor(x) else x for name, x in problem.items()}


def truth(problem: Problem) -> dict[str, Tensor]:
    with use_backend("reference"):
        return scan_and_differentiate(problem, dtype=torch.float64)


@cache
def problem_and_truth(
    shape: tuple[int, int, int, int], optional: bool, channel_last: bool, reverse: bool, lengths: tuple[int, ...] | None
) -> tuple[Problem, dict[str, Tensor]]:
    problem = make_problem(shape, optional, channel_last) | {"reverse": reverse}
    if lengths is not None:
        problem["lengths"] = torch.tensor(lengths)
    return problem, truth(problem)


def error(x: Tensor, reference: Tensor) -> float:
    """max |x - reference| / max |reference|; absolute where the reference is zero in float32."""
    x, scale = x.detach().double().cpu(), float(reference.abs().max())
    return float((x - reference).abs().max()) / (scale if scale > 1e-37 else 1.0)


def assert_close(result: dict[str, Tensor], reference: dict[str, Tensor], tolerance: float = TOLERANCE) -> None:
    errors = {name: error(result[name], reference[name]) for name in reference}
    assert all(value <= tolerance for value in errors.values()), errors


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor], backend: Backend) -> None:
    """Bitwise; but mamba-ssm adds atomically, in any order, what several channels or videos give one gradient."""
    for name, x in a.items():
        if backend.name == "cuda" and name in SHARED:
            assert error(x, b[name].double().cpu()) < 1e-5, name
        else:
            assert torch.equal(x, b[name]), name


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("shape", "optional", "channel_last", "lengths"),
    [
        ((2, 20, 37, 5), True, False, None),
        ((2, 20, 37, 5), False, True, (37, 11)),
        ((3, 64, 1, 16), True, False, (1, 0, 1)),
        ((2, 33, 2, 8), True, True, None),
        ((3, 70, 131, 24), True, True, (131, 32, 65)),
        ((2, 150, 67, 16), True, False, (40, 67)),
        ((1, 18, 33, 256), True, True, None),
        ((2, 5, 97, 1), False, False, None),
        ((1, 16, 2304, 16), True, True, None),
    ],
)
def test_forward_and_all_gradients_equal_the_float64_reference(
    backend: Backend, shape: Any, optional: bool, channel_last: bool, lengths: Any, reverse: bool
) -> None:
    problem, reference = problem_and_truth(shape, optional, channel_last, reverse, lengths)
    assert_close(scan_and_differentiate(problem, backend.device), reference)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["reference", "chunked"])
def test_gradcheck_passes_in_float64(name: str, reverse: bool) -> None:
    problem = make_problem((2, 3, 35 if name == "chunked" else 5, 2))
    leaves = [problem[key].double().requires_grad_() for key in NAMES]
    lengths = torch.tensor([problem["u"].shape[-1], 3])
    with use_backend(name):
        assert torch.autograd.gradcheck(lambda *x: selective_scan(*x, True, reverse, lengths), leaves, fast_mode=True)


@cache
def long_problem_and_truth(reverse: bool, lengths: tuple[int, ...] | None) -> tuple[Problem, dict[str, Tensor]]:
    """A hundred thousand steps, and their results by the chunked form in float64."""
    problem = make_problem((1, 4, 100_000, 4)) | {"reverse": reverse}
    if lengths is not None:
        problem["lengths"] = torch.tensor(lengths)
    with use_backend("chunked"):
        return problem, scan_and_differentiate(problem, dtype=torch.float64)


@pytest.mark.parametrize("lengths", [None, (77_777,)])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["chunked", "cpu"])
def test_a_hundred_thousand_steps_stay_accurate(name: str, reverse: bool, lengths: tuple[int, ...] | None) -> None:
    """Five times the tolerance of short scans for the gradients of A, D and delta_bias: they are sums over all steps.

    Terms of both signs leave a sum that is small beside them, so that the rounding of a hundred thousand shows (A's by
    the kernel: 4e-5 of the largest). The output and a step's own gradients forget the past: there the tolerance is that
    of short scans. The truth is the chunked form in float64, which the tests above compare with the reference: the
    reference itself keeps a graph of every step, and takes too long here.
    """
    if name not in available_backends():
        pytest.skip(f"the backend {name!r} is not available here")
    problem, expected = long_problem_and_truth(reverse, lengths)
    with use_backend(name):
        found = scan_and_differentiate(problem)
    per_step = {key: x for key, x in expected.items() if key in ("out", *TIMED)}
    assert_close(found, per_step)
    assert_close(found, expected, 5e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_valid_part_does_not_depend_on_the_padding(backend: Backend, reverse: bool) -> None:
    lengths = torch.tensor([45, 0, 70])
    problem = make_problem((3, 20, 70, 6)) | {"lengths": lengths, "reverse": reverse}
    padding = (torch.arange(70) >= lengths[:, None])[:, None]

    def padded_with(value: float) -> dict[str, Tensor]:
        timed = {name: problem[name].masked_fill(padding, value) for name in TIMED}
        return scan_and_differentiate(problem | timed, backend.device)

    a, b = padded_with(0.0), padded_with(1e4)
    assert_equal(a, b, backend)
    for name in ("out", *TIMED):
        assert not b[name].cpu().masked_select(padding).any(), f"{name} is not zero in the padding"


def test_a_padded_video_scans_as_it_does_alone(backend: Backend) -> None:
    padded = make_problem((1, 12, 90, 8)) | {"lengths": torch.tensor([50]), "reverse": True}
    alone = {k: v[..., :50] if k in TIMED else v for k, v in padded.items() if k != "lengths"}
    with torch.no_grad():
        a, b = (selective_scan(**to(problem, backend.device)) for problem in (padded, alone))
    assert error(a[..., :50], b.double().cpu()) < 1e-6


def test_reverse_scan_equals_flip_scan_flip(backend: Backend) -> None:
    problem = to(make_problem((2, 20, 75, 5)), backend.device)
    flipped = {k: v.flip(-1) if k in TIMED else v for k, v in problem.items()}
    a = selective_scan(**problem, reverse=True)
    assert error(a, selective_scan(**flipped).flip(-1).double().cpu()) < 1e-6


@pytest.mark.parametrize("scale", [1e-6, 1e3, 1e6])
def test_extreme_step_sizes_stay_finite_and_correct(backend: Backend, scale: float) -> None:
    problem = make_problem((1, 20, 50, 4), optional=False)
    problem["delta"] = problem["delta"] * scale
    result = scan_and_differentiate(problem, backend.device)
    assert all(x.isfinite().all() for x in result.values())
    assert_close(result, truth(problem))


def test_strong_decay_forgets_and_no_decay_sums(backend: Backend) -> None:
    ones = torch.ones(1, 3, 40, device=backend.device)
    maps, rates = ones[:, :1], torch.tensor([[0.0], [-1e30], [-200.0]], device=backend.device)
    out = selective_scan(ones, ones, rates, maps, maps)
    assert torch.equal(out[0, 0].cpu(), torch.arange(1.0, 41.0))
    assert torch.equal(out[0, 1:].cpu(), torch.ones(2, 40))


def test_a_decay_beyond_all_numbers_leaves_nothing(backend: Backend) -> None:
    """At most steps the product's rounding alone is so large that its square overflows."""
    steps = torch.linspace(0.01, 3.0, 40, device=backend.device).expand(1, 3, 40)
    ones = torch.ones_like(steps)
    rates = torch.tensor([[-1e30], [-3e38], [-1e27]], device=backend.device)
    assert torch.equal(selective_scan(ones, steps, rates, ones[:, :1], ones[:, :1]), steps)


def test_any_strides_give_the_same_result(backend: Backend) -> None:
    problem = to(make_problem((2, 40, 61, 7)), backend.device)
    expected = scan_and_differentiate(problem, backend.device)
    apart = {k: torch.stack([v, v], -1)[..., 0] if torch.is_tensor(v) else v for k, v in problem.items()}
    last = {k: v.mT.contiguous().mT if torch.is_tensor(v) and v.dim() == 3 else v for k, v in problem.items()}
    cut = {k: torch.cat([v, v], 1)[:, : v.shape[1]] if k in ("u", "z", "B") else v for k, v in last.items()}
    reference = {name: x.double().cpu() for name, x in expected.items()}
    for strided in (apart, last, cut):
        assert_close(scan_and_differentiate(strided, backend.device), reference, 1e-6)


@pytest.mark.parametrize("name", ["chunked", "cpu"])
def test_the_output_has_the_memory_order_of_the_input(name: str) -> None:
    if name not in available_backends():
        pytest.skip(f"the backend {name!r} is not available here")
    with use_backend(name):
        result = scan_and_differentiate(make_problem((2, 20, 30, 4), channel_last=True))
        assert all(result[key].mT.is_contiguous() for key in ("out", "u", "delta", "z", "B", "C"))
        assert selective_scan(**make_problem((2, 20, 30, 4))).is_contiguous()


def test_results_are_bitwise_equal_across_calls_and_thread_counts(backend: Backend) -> None:
    problem = make_problem((3, 300, 400, 16), channel_last=True)
    if backend.name == "reference":
        problem = make_problem((2, 32, 100, 4))
    results = []
    for threads in (1, 2, 3, 1):
        torch.set_num_threads(threads)
        results.append(scan_and_differentiate(problem, backend.device))
    for other in results[1:]:
        assert_equal(results[0], other, backend)


def test_a_nan_reaches_only_what_depends_on_it(backend: Backend) -> None:
    problem = to(make_problem((2, 40, 50, 4)), backend.device)
    clean = selective_scan(**problem)
    for name in ("u", "delta", "z"):
        dirty = problem | {name: problem[name].clone()}
        dirty[name][1, 17, 20] = float("nan")
        out = selective_scan(**dirty)
        reached = torch.zeros_like(out, dtype=torch.bool)
        reached[1, 17, 20 : 21 if name == "z" else 50] = True
        assert torch.equal(out.isnan(), reached)
        assert torch.equal(out[~reached], clean[~reached])
    rates = problem["A"].clone()
    rates[3, 2] = float("nan")
    assert selective_scan(**problem | {"A": rates}).isnan().any(dim=-1).nonzero()[:, 1].unique().tolist() == [3]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1.5e-2), (torch.float16, 2e-3)])
def test_half_precision_goes_in_and_out_with_float32_states(
    backend: Backend, dtype: torch.dtype, tolerance: float
) -> None:
    for channel_last in (False, True):
        problem = make_problem((2, 40, 200, 8), channel_last=channel_last)
        problem |= {name: problem[name].to(dtype) for name in TIMED}
        result = scan_and_differentiate(problem, backend.device)
        assert all(result[name].dtype == dtype for name in ("out", *TIMED))
        assert result["A"].dtype == torch.float32
        assert_close(result, truth(problem), tolerance)


@pytest.mark.parity
@pytest.mark.golden(BLOCK)
def test_the_released_block_s_scan_is_reproduced(
    backend: Backend, golden: Golden, compare: Compare, request: pytest.FixtureRequest
) -> None:
    given = np.load(golden(BLOCK))
    keys = {name: "delta_raw" if name == "delta" else name for name in NAMES}
    leaves = {n: torch.from_numpy(given[f"scan_{k}"]).to(backend.device).requires_grad_() for n, k in keys.items()}
    out = selective_scan(**leaves, delta_softplus=True)
    grad_out = torch.from_numpy(given["scan_grad_out"]).to(backend.device)
    gradients = torch.autograd.grad(out, list(leaves.values()), grad_out)
    what = f"selective scan, {request.node.callspec.params['backend']}"
    compare(f"{what}: output", out.cpu(), given["scan_out_gated"], TOLERANCE)
    for (name, key), gradient in zip(keys.items(), gradients, strict=True):
        compare(f"{what}: gradient of {name}", gradient.cpu(), given[f"scan_grad_{key}"], TOLERANCE)


@pytest.mark.parametrize("reverse", [False, True])
def test_one_backend_s_states_serve_another_s_backward(reverse: bool) -> None:
    if "cpu" not in available_backends():
        pytest.skip("the backend 'cpu' is not available here")
    problem = make_problem((2, 20, 71, 6), channel_last=reverse)
    tensors = (*(problem[name] for name in NAMES), torch.tensor([40, 71]), True, reverse)
    (out, states), (_, others) = (kernel.forward(*tensors, True) for kernel in (cpu, chunked))
    assert torch.allclose(states, others, atol=1e-5)
    results = [kernel.backward(out, kept, *tensors) for kernel, kept in ((cpu, others), (chunked, states))]
    for name, a, b in zip(NAMES, *results, strict=True):
        assert error(a, b.double()) < 1e-5, name
