"""One tensor in one file of NumPy or PyTorch, read without running anything that the file says."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rdfa.errors import RdfaError

SUFFIXES = (".npy", ".pt", ".pth")


def read_tensor(path: Path) -> NDArray[Any]:
    """The tensor in a `.npy` or `.pt` file, of its own shape and type; bfloat16, which NumPy lacks, becomes float32.

    The file is mapped where its format allows, so that a shape costs no reading.

    Raises:
        RdfaError: no such file, damaged, another format, or anything but one tensor in it; pickled objects are refused
            and not run.
    """
    if not path.is_file():
        raise RdfaError(f"{path}: no such file")
    if path.suffix == ".npy":
        return _read_numpy(path)
    if path.suffix in SUFFIXES:
        return _read_torch(path)
    raise RdfaError(f"{path}: not a format that holds one tensor; these do: {', '.join(SUFFIXES)}")


def _read_numpy(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
        raise RdfaError(f"{path}: not a whole NumPy array of numbers ({_short(error)})") from error
    if not isinstance(array, np.ndarray):
        raise RdfaError(f"{path}: several arrays in one file, where one is needed")
    return array


def _read_torch(path: Path) -> NDArray[Any]:
    try:
        content = _load(path)
    except pickle.UnpicklingError as error:
        raise RdfaError(
            f"{path}: is damaged, or holds other things than one tensor; nothing in it was run ({_short(error)})"
        ) from error
    except Exception as error:  # a damaged file can fail anywhere in torch's readers
        raise RdfaError(f"{path}: not a whole file of torch.save ({_short(error)})") from error
    if not isinstance(content, torch.Tensor):
        raise RdfaError(f"{path}: must hold one tensor, not {type(content).__name__}: torch.save(features, path)")
    if content.layout != torch.strided or content.is_quantized:
        raise RdfaError(f"{path}: a sparse or quantized tensor; save a plain one")
    if content.nbytes > path.stat().st_size:  # an expanded view: a few bytes that would fill the memory
        raise RdfaError(f"{path}: its tensor {tuple(content.shape)} is larger than the file; save a contiguous one")
    content = content.detach()
    return np.asarray((content.float() if content.dtype == torch.bfloat16 else content).numpy())


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        packed = file.read(2) == b"PK"  # what torch.save writes since 1.6; only that can be mapped
    return torch.load(path, map_location="cpu", weights_only=True, mmap=packed)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
