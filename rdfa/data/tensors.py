"""One tensor in one file of NumPy or PyTorch, read without running anything that the file says."""

import io
import pickle
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rdfa.errors import RdfaError

SUFFIXES = (".npy", ".pt", ".pth")


def read_tensor(source: Path | bytes, name: str | None = None) -> NDArray[Any]:
    """The tensor in a `.npy` or `.pt` file, of its own shape and type; bfloat16, which NumPy lacks, becomes float32.

    A file is mapped where its format allows, so that a shape costs no reading.

    Args:
        source: the file, or the content of one of `torch.save`.
        name: what messages call it; by itself the file's path.

    Raises:
        RdfaError: no such file, damaged, another format, or anything but one tensor in it; pickled objects are refused
            and not run.
    """
    name = name or (str(source) if isinstance(source, Path) else "tensor")
    if isinstance(source, bytes):
        return _read_torch(source, len(source), name)
    if not source.is_file():
        raise RdfaError(f"{name}: no such file")
    if source.suffix == ".npy":
        return _read_numpy(source, name)
    if source.suffix in SUFFIXES:
        return _read_torch(source, source.stat().st_size, name)
    raise RdfaError(f"{name}: not a format that holds one tensor; these do: {', '.join(SUFFIXES)}")


def arranged(array: NDArray[Any], axes: Sequence[str], name: str) -> NDArray[np.floating]:
    """Features with their axes in order.

    Args:
        axes: what the array's axes are: `time`, `channel`, and any number of `mean`, over which the mean is taken.
        name: what messages call it.

    Returns:
        (T, C), float16 as stored, else float32; may hold NaN and infinities.

    Raises:
        RdfaError: other numbers than real ones of limited precision, or other axes.
    """
    if array.dtype.kind != "f":
        raise RdfaError(f"{name}: holds {array.dtype}; features are float16 or float32")
    if array.ndim != len(axes):
        raise RdfaError(f"{name}: has shape {array.shape}, the parameters say {len(axes)} axes: {', '.join(axes)}")
    array = array if array.dtype == np.float16 else array.astype(np.float32, copy=False)
    averaged = tuple(index for index, axis in enumerate(axes) if axis == "mean")
    if averaged:
        array = array.mean(axis=averaged, dtype=np.float32).astype(array.dtype)
    ordered = array if axes.index("time") < axes.index("channel") else array.T
    return np.ascontiguousarray(ordered)


def _read_numpy(path: Path, name: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header can fail anywhere in Python's parser
        raise RdfaError(f"{name}: not a whole NumPy array of numbers ({_short(error)})") from error
    if not isinstance(array, np.ndarray):
        raise RdfaError(f"{name}: several arrays in one file, where one is needed")
    return array


def unpickled(source: Path | bytes, name: str, wanted: str) -> Any:
    """What torch.save wrote, on the CPU: tensors, plain values and what torch is told to trust; all else is refused.

    Args:
        source: the file, or its content.  name: what messages call it.  wanted: what should be in it.

    Raises:
        RdfaError: damaged, or anything else in it, which is not run.
    """
    try:
        return _load(source)
    except pickle.UnpicklingError as error:
        raise RdfaError(
            f"{name}: is damaged, or holds other things than {wanted}; nothing in it was run ({_short(error)})"
        ) from error
    except Exception as error:  # a damaged file can fail anywhere in torch's readers
        raise RdfaError(f"{name}: not a whole file of torch.save ({_short(error)})") from error


def refuse_damaged(path: Path) -> None:
    """Refuse a file of torch.save whose bytes are not those that its checksums are of, which torch does not look at.

    Reads the file; one of before PyTorch 1.6, or in NumPy's format, has no checksums.

    Raises:
        RdfaError: names the damaged part.
    """
    try:
        if path.suffix != ".npy" and _is_packed(path):
            with zipfile.ZipFile(path) as packed:
                damaged = packed.testzip()
            if damaged is not None:
                raise RdfaError(
                    f"{path}: damaged: the checksum of its part {damaged!r} is wrong; bring the file back (or save it "
                    "anew, if its writer switched PyTorch's checksums off)"
                )
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, zlib.error) as error:
        raise RdfaError(f"{path}: not a whole file of torch.save ({_short(error)})") from error


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"  # what torch.save writes since 1.6; only that can be mapped


def _read_torch(source: Path | bytes, size: int, name: str) -> NDArray[Any]:
    content = unpickled(source, name, "one tensor")
    if not isinstance(content, torch.Tensor):
        raise RdfaError(f"{name}: must hold one tensor, not {type(content).__name__}: torch.save(features, path)")
    if content.layout != torch.strided or content.is_quantized:
        raise RdfaError(f"{name}: a sparse or quantized tensor; save a plain one")
    if content.numel() * content.element_size() > size:  # an expanded view: a few bytes that would fill the memory
        raise RdfaError(f"{name}: its tensor {tuple(content.shape)} is larger than the file; save a contiguous one")
    content = content.detach()
    return np.asarray((content.float() if content.dtype == torch.bfloat16 else content).numpy())


def _load(source: Path | bytes) -> Any:
    if isinstance(source, bytes):
        return torch.load(io.BytesIO(source), map_location="cpu", weights_only=True)
    return torch.load(source, map_location="cpu", weights_only=True, mmap=_is_packed(source))


def _short(error: BaseException) -> str:
    """What an error says, without the advice of torch's to load the file unsafely."""
    lines = [line for line in str(error).splitlines() if "Unsupported" in line or "GLOBAL" in line]
    return " ".join((lines[0] if lines else str(error)).split())[:120] or type(error).__name__
