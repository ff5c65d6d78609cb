"""What made a result: git commit, versions, machine. Recorded beside every result, part of no key."""

import importlib.metadata
import os
import platform
import subprocess
from typing import Any

import rdfa

_LIBRARIES = ("torch", "numpy", "h5py", "safetensors", "omegaconf", "pydantic", "mlflow", "snakemake", "dvc")


def provenance() -> dict[str, Any]:
    """Commit, whether the checkout differs from it, versions of rdfa, Python and libraries, and the machine."""
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "rdfa": rdfa.__version__,
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "platform": f"{platform.system()} {platform.machine()}",
        "gpu": _gpu(),
        "dvc_experiment": os.environ.get("DVC_EXP_NAME"),
    }


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _git(*arguments: str) -> str | None:
    try:
        finished = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return finished.stdout.strip()


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
