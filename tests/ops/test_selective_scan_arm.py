"""The kernel on a 64-bit ARM processor: cross-compiled from the same sources, run under an emulator."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rdfa.ops.selective_scan.build import FLAGS, KERNEL, OTHER_VARIANTS
from tests.ops.test_selective_scan import NAMES, error, make_problem, scan_and_differentiate, truth

COMPILER = shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")

pytestmark = pytest.mark.skipif(
    COMPILER is None or EMULATOR is None, reason="needs aarch64-linux-gnu-g++ and qemu-aarch64 on the PATH"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], bytes]:
    """Run the driver on a problem's bytes."""
    folder = tmp_path_factory.mktemp("arm")
    ((variant, extra),) = OTHER_VARIANTS.items()
    sources = [KERNEL / "variant.cpp", KERNEL / "dispatch.cpp", Path(__file__).with_name("selective_scan_driver.cpp")]
    options = [*FLAGS, *extra, "-fopenmp", "-static", f"-DSCAN_VARIANT={variant}", f"-I{KERNEL}"]
    subprocess.run([str(COMPILER), *options, *map(str, sources), "-o", str(folder / "driver")], check=True)

    def run(problem: bytes) -> bytes:
        command = [str(EMULATOR), str(folder / "driver")]
        return subprocess.run(command, input=problem, capture_output=True, check=True).stdout

    return run


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_kernel_is_correct_on_arm(driver: Callable[[bytes], bytes], reverse: bool, threads: int) -> None:
    shape, lengths = (2, 135, 70, 12), [70, 41]
    problem = make_problem(shape) | {"reverse": reverse, "lengths": torch.tensor(lengths)}
    grad_out = torch.randn(shape[:3], generator=torch.Generator().manual_seed(1))
    head = np.array([*shape, reverse, threads, *lengths], dtype=np.int64)
    tensors = [*(problem[name] for name in NAMES), grad_out]
    answer = driver(head.tobytes() + b"".join(x.numpy().tobytes() for x in tensors))

    values = torch.from_numpy(np.frombuffer(answer, dtype=np.float32).copy())
    expected = truth(problem)
    here = scan_and_differentiate(problem)
    for name, x in zip(expected, values.split([here[name].numel() for name in expected]), strict=True):
        assert error(x.view(here[name].shape), expected[name]) <= 1e-5, name
