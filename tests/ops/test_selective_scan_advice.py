"""What `rdfa doctor` advises on a machine with an NVIDIA card: the card and nvcc are programs on a faked PATH."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rdfa.doctor import diagnose
from rdfa.ops.selective_scan import advice, available_backends, cuda

WHEEL = "MAMBA_SKIP_CUDA_BUILD=TRUE pip install --no-build-isolation mamba-ssm=="
COMPILED = "pip install --no-build-isolation mamba-ssm ("
CARD = "echo 'GPU 0: NVIDIA H200 (UUID: GPU-0)'"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only folder on the PATH, empty; torch is built without CUDA, and nothing else of NVIDIA's is here."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CUDA_HOME", "CUDA_PATH", "CXX", "RDFA_SCAN_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(advice, "DRIVER", tmp_path / "driver")
    monkeypatch.setattr(advice, "TOOLKIT", tmp_path / "toolkit")
    monkeypatch.setattr(advice, "is_x86", lambda: True)
    monkeypatch.setattr("rdfa.doctor.self_test", lambda: "correct")
    cuda.missing.cache_clear()
    yield tmp_path
    cuda.missing.cache_clear()


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def advised() -> str:
    (line,) = (line for line in diagnose().splitlines() if line.startswith("faster:"))
    return line.removeprefix("faster:").strip()


def test_without_a_card_there_is_nothing_to_do(programs: Path) -> None:
    if "cpu" not in available_backends():
        pytest.skip("the compiled kernel is not built")
    assert advised() == "nothing to do: this is the fastest backend for this machine"
    program(programs / "nvidia-smi", "echo 'no devices were found'; exit 6")
    assert advised().startswith("nothing to do")


def test_a_card_that_torch_cannot_use_wants_the_newest_torch_with_a_wheel(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(programs / "nvidia-smi", CARD)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    newest = "pip uninstall -y torch && pip install 'torch==2.10.*' && "
    assert advised() == f"{newest}{WHEEL}2.3.1 (its wheel for torch 2.10, nothing is compiled)"


def test_a_driver_alone_tells_of_a_card(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (programs / "driver").touch()
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    same = "pip uninstall -y torch && pip install 'torch==2.5.1' && "
    assert advised() == f"{same}{WHEEL}2.3.0 (its wheel for torch 2.5, nothing is compiled)"


@pytest.mark.parametrize("where", ["nvcc", "toolkit/bin/nvcc"])
def test_with_nvcc_a_torch_without_a_wheel_stays(programs: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program(programs / "nvidia-smi", CARD)
    program(programs / where, "exit 0")
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    same = "pip uninstall -y torch && pip install 'torch==2.13.0' && "
    assert advised().startswith(
        f"{same}{COMPILED}compiled by {programs / where}, which must be of torch's CUDA version"
    )


def test_a_cuda_torch_needs_mamba_ssm_alone(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    monkeypatch.setattr("rdfa.doctor._cuda", lambda: "a device")
    assert advised() == f"{WHEEL}2.3.1 (its wheel for torch 2.9, nothing is compiled)"


def test_a_cuda_torch_without_a_device_wants_a_driver(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(programs / "nvidia-smi", CARD)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert advised().startswith("a driver for CUDA 13.0, for this torch sees no device")


def test_elsewhere_than_on_x86_nvcc_comes_first(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(programs / "nvidia-smi", CARD)
    monkeypatch.setattr(advice, "is_x86", lambda: False)
    monkeypatch.setattr(torch, "__version__", "2.10.0+cpu")
    assert advised().endswith(
        f"{COMPILED}after installing the CUDA toolkit of torch's CUDA version, for there is no nvcc here)"
    )
