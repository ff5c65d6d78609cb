"""The command that would give the CUDA backend on a machine with an NVIDIA card, from what is found on it."""

import os
import shutil
import subprocess
from pathlib import Path

import torch

from rdfa.ops.selective_scan import cuda
from rdfa.ops.selective_scan.backends import CUDA_COMMAND
from rdfa.ops.selective_scan.build import is_x86

WHEELS = {"2.5": "2.3.0", **dict.fromkeys(("2.6", "2.7", "2.8", "2.9", "2.10"), "2.3.1")}
"""torch's minor version, and the mamba-ssm that has a wheel for it (docs/performance.md)."""
NEWEST = "2.10"
"""The newest torch in `WHEELS`."""
DRIVER = Path("/proc/driver/nvidia/version")
TOOLKIT = Path("/usr/local/cuda")


def cuda_command() -> str | None:
    """What to run, and why; None without an NVIDIA card, or where mamba-ssm already works."""
    if torch.version.hip or not has_card() or cuda.missing() is None:
        return None
    if torch.version.cuda and not torch.cuda.is_available():
        return f"a driver for CUDA {torch.version.cuda}, for this torch sees no device; what there is: nvidia-smi"
    version = torch.__version__.split("+")[0]
    minor, compiler = ".".join(version.split(".")[:2]), find_nvcc()
    steps = []
    if minor in WHEELS or compiler or not is_x86():
        if torch.version.cuda is None:
            steps.append(_torch(version))
    else:
        minor = NEWEST
        steps.append(_torch(f"{NEWEST}.*"))
    steps.append(_mamba(minor))
    return f"{' && '.join(steps)} ({_why(minor, compiler)})"


def has_card() -> bool:
    """Whether this machine has an NVIDIA card, also if torch is built without CUDA: by its driver."""
    if torch.cuda.is_available() or DRIVER.exists():
        return True
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    try:
        listed = subprocess.run([command, "-L"], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def find_nvcc() -> str | None:
    """The CUDA compiler, where torch's extensions look for it."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), str(TOOLKIT)]
    return shutil.which("nvcc") or next(
        filter(None, (shutil.which(f"{home}/bin/nvcc") for home in homes if home)), None
    )


def _torch(version: str) -> str:
    """Uninstalled first: pip takes a CPU build for the same version."""
    return f"pip uninstall -y torch && pip install 'torch=={version}'"


def _mamba(minor: str) -> str:
    """By a wheel where there is one; its set-up program then needs no nvcc, but must be told so."""
    if minor in WHEELS and is_x86():
        return f"MAMBA_SKIP_CUDA_BUILD=TRUE pip install --no-build-isolation mamba-ssm=={WHEELS[minor]}"
    return CUDA_COMMAND


def _why(minor: str, compiler: str | None) -> str:
    if minor in WHEELS and is_x86():
        return f"its wheel for torch {minor}, nothing is compiled"
    if compiler:
        return f"compiled by {compiler}, which must be of torch's CUDA version; no wheel is known for this torch"
    return "after installing the CUDA toolkit of torch's CUDA version, for there is no nvcc here"
