"""The choice of a backend: what is said, what is refused, and a machine without a compiler."""

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from rdfa.doctor import diagnose, self_test
from rdfa.errors import RdfaError
from rdfa.ops.selective_scan import (
    Scan,
    available_backends,
    backends,
    build,
    cpu,
    cuda,
    describe,
    reference,
    selective_scan,
    selective_scans,
    use_backend,
)
from rdfa.ops.selective_scan.layout import boundary_states
from tests.ops.test_selective_scan import Problem, make_problem

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_PATH = {**os.environ, "PATH": "/nonexistent", "CXX": "", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the compiled kernel had never been built."""
    monkeypatch.delenv("RDFA_SCAN_BACKEND", raising=False)
    monkeypatch.setattr(cpu, "load", lambda: "the compiled kernel is not built")
    backends._say_once.cache_clear()
    yield
    backends._say_once.cache_clear()


def arguments() -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    u, delta, B, C = (torch.rand(2, rows, 40, generator=draw) for rows in (6, 6, 3, 3))
    return u, delta, -torch.rand(6, 3, generator=draw), B, C


def test_without_the_library_the_chunked_form_takes_over_and_says_so_once(
    no_library: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        first, second = selective_scan(*arguments()), selective_scan(*arguments())
    assert torch.equal(first, second)
    assert torch.allclose(first, reference.selective_scan(*arguments()), atol=1e-6)
    (record,) = caplog.records
    assert "not built" in record.message
    assert build.COMMAND in record.message
    assert describe("cpu") == ("chunked", "the compiled kernel is not built", build.COMMAND)
    assert "cpu" not in available_backends()


def test_a_program_exported_with_the_library_runs_without_it(
    no_library: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        out, _ = torch.ops.rdfa.selective_scan(*arguments(), None, None, None, None, False, False, False, "cpu")
    assert torch.allclose(out, reference.selective_scan(*arguments()), atol=1e-6)
    assert len(caplog.records) == 1


def test_an_environment_variable_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDFA_SCAN_BACKEND", "chunked")
    assert backends.choose("cpu", torch.float32) == "chunked"
    assert describe("cpu") == ("chunked", "RDFA_SCAN_BACKEND asks for it", "unset RDFA_SCAN_BACKEND")
    with use_backend("reference"):
        assert backends.choose("cpu", torch.float32) == "reference"
    assert backends.choose("cpu", torch.float32) == "chunked"


def test_float64_is_scanned_in_float64() -> None:
    assert backends.choose("cpu", torch.float64) == "chunked"
    inputs = [x.double() for x in arguments()]
    assert (selective_scan(*inputs) - reference.selective_scan(*inputs)).abs().max() < 1e-14


def test_a_backend_that_cannot_run_is_refused_with_the_command_that_would_give_it(
    no_library: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RdfaError, match="no scan backend is called 'gpu'; there are reference, chunked, cpu, cuda"):
        use_backend("gpu").__enter__()
    with pytest.raises(RdfaError, match=f"to get it: {build.COMMAND}"):
        use_backend("cpu").__enter__()
    monkeypatch.setenv("RDFA_SCAN_BACKEND", "cpu")
    with pytest.raises(RdfaError, match="cannot run here"):
        selective_scan(*arguments())


def test_the_compiled_backend_refuses_float64_when_it_is_asked_for() -> None:
    if "cpu" not in available_backends():
        pytest.skip("the compiled kernel is not built")
    with use_backend("cpu"), pytest.raises(RdfaError, match=r"torch\.float64"):
        selective_scan(*(x.double() for x in arguments()))


def test_inference_keeps_no_states(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []

    def recording(u: Tensor, states: int, keep: bool) -> Tensor:
        kept.append(keep)
        return boundary_states(u, states, keep)

    for name in ("chunked", "cpu"):
        monkeypatch.setattr(f"rdfa.ops.selective_scan.{name}.boundary_states", recording)
    problem = make_problem((1, 8, 40, 4))
    selective_scan(**problem)
    problem["u"].requires_grad_()
    with torch.no_grad():
        selective_scan(**problem)
    selective_scan(**problem)
    assert kept == [False, False, True]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"delta": torch.zeros(2, 8, 9)}, r"delta must be \(2, 8, 10\)"),
        ({"A": torch.zeros(7, 3)}, r"A must be \(8, 3\)"),
        ({"B": torch.zeros(2, 4, 10)}, r"B must be \(2, 3, 10\)"),
        ({"z": torch.zeros(2, 8)}, r"z must be \(2, 8, 10\)"),
        ({"u": torch.zeros(8, 10)}, r"u must be \(B, D, T\)"),
        ({"D": torch.zeros(8, dtype=torch.int64)}, "D cannot be torch.int64"),
        ({"lengths": torch.ones(2)}, "lengths cannot be torch.float32"),
        ({"lengths": torch.tensor([3, 11])}, "lengths must be from 0 to 10"),
        ({"lengths": torch.tensor([3, -1])}, "lengths must be from 0 to 10"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(change: Problem, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        selective_scan(**make_problem((2, 8, 10, 3)) | change)


def test_without_a_compiler_the_build_says_what_to_do() -> None:
    command = [sys.executable, "-m", "rdfa.ops.selective_scan.build"]
    result = subprocess.run(command, env=WITHOUT_PATH, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "no C++ compiler on the PATH" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_compiler_the_installation_succeeds(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="the installation needs setuptools")
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").touch()
    shutil.copytree(ROOT / "rdfa", tmp_path / "rdfa", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    command = [sys.executable, "setup.py", "-q", "build"]
    result = subprocess.run(command, cwd=tmp_path, env=WITHOUT_PATH, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "kernel was not built" in result.stderr
    assert list(tmp_path.glob("build/lib*/rdfa/ops/selective_scan/kernel/variant.cpp")), "its sources are installed"
    assert not list(tmp_path.glob("build/**/*.so"))

    # pip hides the warning above: the Makefile's next command says it once more, and the installation goes on.
    command = [sys.executable, "-m", "rdfa.ops.selective_scan.build", "--check"]
    environment = WITHOUT_PATH | {"PYTHONPATH": str(tmp_path)}
    check = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (check.returncode, check.stderr, len(check.stdout.splitlines())) == (0, "", 1)
    assert "no C++ compiler on the PATH; install g++ or clang++ and run: " in check.stdout
    library = tmp_path / "rdfa" / "ops" / "selective_scan" / build.library_name()
    library.touch()
    check = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (check.returncode, check.stderr, check.stdout) == (0, "", "")


def test_a_compiler_s_error_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(build.BuildError, match="out of order"):
        build.build(tmp_path / "library.so")
    assert list(tmp_path.iterdir()) == [broken]


def test_the_compiler_may_have_a_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = tmp_path / "ccache"
    launcher.write_text("#!/bin/sh\necho launched: $1 >&2\nexit 1\n")
    launcher.chmod(0o755)
    monkeypatch.setenv("CXX", f"{launcher} g++")
    assert build.find_compiler() == [str(launcher), "g++"]
    with pytest.raises(build.BuildError, match=r"launched: g\+\+"):
        build.build(tmp_path / "library.so")


@pytest.mark.parametrize("name", ["no-such-compiler", "'g++"])
def test_a_compiler_that_is_asked_for_and_absent_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", name)
    with pytest.raises(build.BuildError, match=f"CXX names .*{re.escape(name)}.*, which is not on the PATH"):
        build.build(tmp_path / "library.so")


def test_a_compiler_that_does_not_start_is_no_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "g++"
    broken.write_bytes(b"\x7fELF of another machine")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(build.BuildError, match=rf"{re.escape(str(broken))} cannot be started \(Exec format error\)"):
        build.build(tmp_path / "library.so")
    assert "cannot be started" in diagnose()
    (tmp_path / "file").touch()
    monkeypatch.setenv("CXX", "true")
    with pytest.raises(build.BuildError, match=r"file/library\.so: cannot be written"):
        build.build(tmp_path / "file" / "library.so")


def test_the_library_s_name_changes_with_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(build.KERNEL, tmp_path / "kernel")
    before = build.library_name()
    monkeypatch.setattr(build, "KERNEL", tmp_path / "kernel")
    assert build.library_name() == before
    with (tmp_path / "kernel" / "simd.h").open("a") as source:
        source.write("// changed\n")
    assert build.library_name() != before


@pytest.fixture
def mamba(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch of each call of mamba-ssm's function, with the reference in its place (same first nine parameters)."""
    batches: list[int] = []

    def selective_scan_fn(u: Tensor, delta: Tensor, A: Tensor, *others: Tensor, **options: bool) -> Tensor:
        batches.append(len(u))
        return reference.selective_scan(u, delta, A, *others, **options)

    interface = SimpleNamespace(selective_scan_fn=selective_scan_fn)
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", interface)
    return batches


@pytest.fixture
def device(mamba: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """As if torch saw a CUDA device on which mamba-ssm ran: its tensors lie on the CPU. Gives mamba-ssm's calls."""
    ones = torch.ones
    monkeypatch.delenv("RDFA_SCAN_BACKEND", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch, "ones", lambda *shape, **options: ones(*shape, **options | {"device": "cpu"}))
    cuda.missing.cache_clear()
    yield mamba
    cuda.missing.cache_clear()


def test_a_detection_that_asks_first_finds_mamba_ssm(device: list[int]) -> None:
    with torch.inference_mode():
        assert backends.choose("cuda", torch.float32) == "cuda"
    assert device == [1]
    assert describe("cuda") == ("cuda", "mamba-ssm's selective_scan_fn works here", None)


def test_the_doctor_reports_a_backend_that_cannot_take_this_device_s_tensors(
    device: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "cpu" not in available_backends():
        pytest.skip("the compiled kernel is not built")
    monkeypatch.setenv("RDFA_SCAN_BACKEND", "cpu")
    monkeypatch.setattr("rdfa.doctor._cuda", lambda: "a device")
    monkeypatch.setattr("rdfa.doctor.self_test", lambda: self_test("cpu"))  # there is no device to run it on
    report = diagnose()
    assert "none (the scan backend 'cpu' was asked for, but the tensors are torch.float32 on 'cuda')" in report
    assert "unset RDFA_SCAN_BACKEND" in report


def test_the_doctor_reports_a_backend_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDFA_SCAN_BACKEND", "gpu")
    report = diagnose()
    assert "none (no scan backend is called 'gpu'" in report
    assert "self-test:         not run: no scan backend is called 'gpu'" in report


def test_the_doctor_reports_a_backend_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*inputs: Tensor, **options: bool) -> Tensor:
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setattr("rdfa.doctor.selective_scan", failing)
    assert self_test("cpu") == "FAILED: RuntimeError: no kernel image"


@pytest.mark.parametrize("reverse", [False, True])
def test_the_cuda_backend_hands_mamba_ssm_flipped_and_masked_inputs(mamba: list[int], reverse: bool) -> None:
    u, delta, A, B, C = arguments()
    options = {"D": A[:, 0], "z": u - 0.5, "delta_bias": A[:, 1], "delta_softplus": True, "reverse": reverse}
    for lengths in (None, torch.tensor([40, 13])):
        expected = reference.selective_scan(u, delta, A, B, C, **options, lengths=lengths)
        assert torch.allclose(cuda.selective_scan(u, delta, A, B, C, **options, lengths=lengths), expected, atol=1e-6)
    assert mamba == [2, 2]


def test_several_scans_are_one_launch_of_mamba_ssm(mamba: list[int]) -> None:
    u, delta, A, B, C = arguments()
    scans = [
        Scan(u, delta, B, C, u - 0.5, False),
        Scan(2 * u, delta + 1, C, B, u, True),
        Scan(-u, delta, B, B, u, True),
    ]
    for lengths in (None, torch.tensor([40, 13])):
        mamba.clear()
        got = cuda.selective_scans(scans, A, A[:, 0], A[:, 1], True, lengths)
        expected = selective_scans(scans, A, A[:, 0], A[:, 1], True, lengths)
        assert mamba == [6]
        for a, b in zip(got, expected, strict=True):
            assert torch.allclose(a, b, atol=1e-5)


class Directions(nn.Module):
    """A block's scans in both directions, from one projection, on the CUDA backend wherever the tensors are."""

    def __init__(self, optional: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Linear(5, 3 * 6 + 2 * 3)
        self.A = nn.Parameter(-torch.rand(6, 3) - 0.1)
        self.D, self.bias = (nn.Parameter(torch.randn(6)) if optional else None for _ in range(2))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        u, delta, z, B, C = self.project(x).mT.split([6, 6, 6, 3, 3], dim=1)
        gate = z if self.D is not None else None
        scans = [Scan(u, delta, B, C, gate, reverse) for reverse in (False, True)]
        return torch.cat(cuda.selective_scans(scans, self.A, self.D, self.bias, True, lengths))


@pytest.mark.parametrize("optional", [False, True])
def test_mamba_ssm_s_scan_is_traced_without_graph_breaks_and_differentiated(mamba: list[int], optional: bool) -> None:
    model, batch = Directions(optional), (torch.randn(2, 11, 5), torch.tensor([11, 4]))

    def gradients(out: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(out.square().sum(), list(model.parameters()))

    expected = model(*batch)
    assert mamba == [4]
    expected_gradients = gradients(expected)
    assert mamba == [4], "called directly, mamba-ssm keeps what its backward needs"
    traced = torch.compile(model, backend="aot_eager", fullgraph=True)
    out = traced(*batch)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients(out), expected_gradients)
    assert mamba == [4, 4, 4]


def test_a_model_with_mamba_ssm_s_scan_is_exported(mamba: list[int]) -> None:
    model, batch = Directions(True), (torch.randn(2, 11, 5), torch.tensor([11, 4]))
    program = torch.export.export(model, batch)
    assert "rdfa.mamba_scan" in program.graph_module.code
    torch.testing.assert_close(program.module()(*batch), model(*batch))


@pytest.mark.parametrize("optional", [False, True])
def test_mamba_ssm_s_operators_give_what_tracing_expects(mamba: list[int], optional: bool) -> None:
    u, delta, A, B, C = (x.requires_grad_() for x in arguments())
    others = (torch.randn(6, requires_grad=True), torch.randn_like(u), torch.randn(6)) if optional else (None,) * 3
    torch.library.opcheck(torch.ops.rdfa.mamba_scan.default, (u, delta, A, B, C, *others, True))
    inputs = [None if x is None else x.detach() for x in (torch.ones_like(u), u, delta, A, B, C, *others)]
    found = torch.ops.rdfa.mamba_gradients(*inputs, True)
    with FakeTensorMode() as fake:
        shapes = [None if x is None else fake.from_tensor(x) for x in inputs]
        promised = torch.ops.rdfa.mamba_gradients(*shapes, True)
    for a, b in zip(found, promised, strict=True):
        assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)


def test_several_scans_must_be_of_one_shape() -> None:
    u, delta, A, B, C = arguments()
    with pytest.raises(ValueError, match="same shape"):
        selective_scans([Scan(u, delta, B, C, None, False), Scan(u[:1], delta[:1], B[:1], C[:1], None, False)], A)


def test_several_scans_have_a_gate_all_or_none(device: list[int]) -> None:
    u, delta, A, B, C = arguments()
    mixed = [Scan(u, delta, B, C, u, False), Scan(u, delta, B, C, None, True)]
    with pytest.raises(ValueError, match="every scan needs a gate z or none, but 1 of 2 have one"):
        selective_scans(mixed, A)


def test_the_doctor_finds_the_backend_correct_and_names_what_would_be_faster(no_library: None) -> None:
    report = diagnose()
    assert "chunked (the compiled kernel is not built)" in report
    assert build.COMMAND in report
    assert "correct (largest relative error" in report


def test_the_doctor_s_self_test_notices_a_wrong_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*inputs: Tensor, **options: bool) -> Tensor:
        noise = 0.001 if inputs[0].dtype == torch.float32 else 0.0
        return reference.selective_scan(*inputs, **options) * (1 + noise)

    monkeypatch.setattr("rdfa.doctor.selective_scan", wrong)
    assert self_test("cpu").startswith("WRONG")


@pytest.mark.parametrize("which", ["u", "D"])
def test_the_doctor_s_self_test_notices_gradients_that_are_no_numbers(
    which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(u: Tensor, *others: Tensor, **options: bool) -> Tensor:
        if u.dtype == torch.float32:
            poisoned = u if which == "u" else others[4]
            poisoned.register_hook(lambda gradient: gradient * float("nan"))
        return reference.selective_scan(u, *others, **options)

    monkeypatch.setattr("rdfa.doctor.selective_scan", broken)
    assert self_test("cpu").startswith("WRONG: please report this (largest relative error nan)")
