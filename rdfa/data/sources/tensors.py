"""Tensors of other people's files (`torch.save`), read without running anything in them."""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rdfa.errors import RdfaError

_ALMOST_WHOLE = (torch.float16, torch.float32)
_NARROWED = (torch.bfloat16, torch.float64)


def read_tensor(
    source: bytes | Path, axes: Sequence[str] = ("time", "channel"), name: str | None = None
) -> NDArray[np.floating]:
    """Read one tensor of features.

    Args:
        source: the file, or its content.
        axes: what the tensor's axes are, in order: `time`, `channel`, and any number of `mean`, over which the mean
            is taken.
        name: what messages call the tensor; by itself the file's path.

    Returns:
        (T, C), float16 as stored, else float32; may hold NaN and infinities.

    Raises:
        RdfaError: no such file, damaged, anything else than one dense tensor of real numbers (nothing in it was run),
            or one with other axes.
    """
    name = name or (str(source) if isinstance(source, Path) else "tensor")
    try:
        content = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise RdfaError(f"{name}: cannot be read ({error.strerror or error})") from error
    tensor = _load(content, name)
    if tensor.layout != torch.strided or tensor.dtype not in _ALMOST_WHOLE + _NARROWED:
        raise RdfaError(
            f"{name}: is a tensor of {tensor.dtype}, {tensor.layout}; features are dense float16 or float32"
        )
    if tensor.numel() * tensor.element_size() > len(content):
        raise RdfaError(f"{name}: claims the shape {tuple(tensor.shape)}, more than its {len(content)} bytes hold")
    if tensor.ndim != len(axes):
        raise RdfaError(
            f"{name}: has shape {tuple(tensor.shape)}, the parameters say {len(axes)} axes: {', '.join(axes)}"
        )
    array = (tensor if tensor.dtype in _ALMOST_WHOLE else tensor.float()).numpy()
    averaged = tuple(index for index, axis in enumerate(axes) if axis == "mean")
    if averaged:
        array = array.mean(axis=averaged, dtype=np.float32).astype(array.dtype)
    ordered = array if axes.index("time") < axes.index("channel") else array.T
    return np.ascontiguousarray(ordered)


def _load(content: bytes, name: str) -> torch.Tensor:
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "Unsupported" in line or "GLOBAL" in line), "")
        what = " ".join(reason.split())[:120] or "not a tensor file"
        raise RdfaError(
            f"{name}: is damaged, or holds other things than tensors; nothing in it was run ({what})"
        ) from error
    except Exception as error:  # a damaged file can fail anywhere in torch's readers
        what = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise RdfaError(f"{name}: not a whole tensor file of PyTorch ({what})") from error
    if not isinstance(loaded, torch.Tensor):
        raise RdfaError(f"{name}: holds a {type(loaded).__name__}, not one tensor")
    return loaded.detach()
