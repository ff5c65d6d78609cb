"""Features in files that somebody else wrote: .npy, .pt and .h5, opened lazily and read a stretch at a time.

`open_features` lists the videos of a file or a folder; a `VideoFeatures` reads any stretch of its steps, so that a
video of hours never has to fit into memory. Nothing is unpickled beyond tensors, and what is read is checked.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rdfa.data.activitynet_json import refuse_invisible
from rdfa.data.hdf5_arrays import DAMAGE, Arrays, damaged, said
from rdfa.data.hdf5_arrays import ENDINGS as HDF5
from rdfa.data.tensors import SUFFIXES, read_tensor, refuse_damaged
from rdfa.errors import RdfaError

ENDINGS = (*SUFFIXES, *HDF5)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What is known of a video's time: frames per second, frames, frames, seconds; None where nobody said it."""

    fps: float | None = None
    stride: float | None = None
    window: float | None = None
    duration: float | None = None


@dataclass(frozen=True, kw_only=True)
class VideoFeatures:
    """The features of one video, not yet read."""

    video: str
    place: str
    """File and video, for messages."""
    shape: tuple[int, int]
    """(T, C)."""
    timing: Timing
    """What the file says."""
    rows: Callable[[slice], Any]
    """Steps of a slice as an array (n, C)."""

    def read(self, start: int, stop: int, step: int = 1) -> NDArray[np.float32]:
        """Every `step`-th step from `start` to before `stop`: (n, C) float32, finite.

        Raises:
            RdfaError: the file is damaged there, or a value is not finite, naming step and channel.
        """
        try:
            part = np.asarray(self.rows(slice(start, stop, step))).astype(np.float32, copy=False)
        except (*DAMAGE, EOFError) as error:
            raise RdfaError(f"{self.place}: damaged at steps {start} to {stop} ({_reason(error)})") from error
        finite = np.isfinite(part)
        if not finite.all():
            row, channel = (int(i) for i in np.argwhere(~finite)[0])
            raise RdfaError(
                f"{self.place}: the feature at step {start + row * step}, channel {channel} is {part[row, channel]}"
            )
        return part


def open_features(path: Path, dimension: int) -> list[VideoFeatures]:
    """The videos of a feature file, or of all feature files of a folder, sorted by file and name.

    .npy and .pt hold one array (T, C), their name is the video's; .h5 is a feature store (docs/data.md) or has one data
    set (T, C) per video, in groups or not, with whatever it or the file knows of fps, stride, window and duration.

    Args:
        dimension: channels C that the features must have.

    Raises:
        RdfaError: no such file, another format, damaged, of another shape or kind, or a video that occurs twice.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in ENDINGS and file.is_file())
        if not files:
            raise RdfaError(f"{path}: no feature files in this folder ({', '.join(ENDINGS)})")
    else:
        files = [path]
    found: dict[str, VideoFeatures] = {}
    for file in files:
        for video in _in_file(file, dimension):
            refuse_invisible(file, [video.video])
            if video.video in found:
                raise RdfaError(f"{video.place}: video {video.video!r} is in {found[video.video].place} too")
            found[video.video] = video
    return list(found.values())


def in_memory(features: Any, dimension: int, name: str = "features") -> VideoFeatures:
    """An array or tensor (T, C) as a video's features, checked like a file.

    Raises:
        RdfaError: another shape or kind.
    """
    array = features.detach().cpu() if isinstance(features, torch.Tensor) else np.asarray(features)
    return _video(name, name, array, dimension, Timing())


def _in_file(file: Path, dimension: int) -> Iterator[VideoFeatures]:
    if not file.is_file():
        raise RdfaError(f"{file}: no such file or folder")
    if file.suffix in HDF5:
        yield from _in_hdf5(file, dimension)
    elif file.suffix in SUFFIXES:
        video = _video(file.stem, str(file), read_tensor(file), dimension, Timing())
        yield replace(video, rows=_after(partial(refuse_damaged, file), video.rows))
    else:
        raise RdfaError(f"{file}: features are read from {', '.join(ENDINGS)} files")


def _after(check: Callable[[], None], rows: Callable[[slice], Any]) -> Callable[[slice], Any]:
    """`rows`, but `check` comes before the first of them: listing files must not read them through."""
    checked = cache(check)

    def checked_rows(part: slice) -> Any:
        checked()
        return rows(part)

    return checked_rows


def _in_hdf5(file: Path, dimension: int) -> Iterator[VideoFeatures]:
    arrays = Arrays(file)
    if not arrays:
        raise RdfaError(f"{file}: no data set in it; one array (T, C) per video is needed")
    for name, array in arrays.items():
        attributes = said(file, array)
        try:
            timing = Timing(**{each: _number(attributes, each) for each in Timing.__annotations__})
        except DAMAGE as error:
            raise damaged(file, error) from error
        video = _video(name, f"{file}, video {name!r}", array, dimension, timing)
        yield replace(video, rows=partial(_stored_rows, arrays, name))


def _stored_rows(arrays: Arrays, name: str, part: slice) -> Any:
    return arrays[name][part]


def _number(attributes: Any, name: str) -> float | None:
    if name not in attributes:
        return None
    value = float(attributes[name])
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"attribute {name} is {value}")
    return value


def _video(video: str, place: str, array: Any, dimension: int, timing: Timing) -> VideoFeatures:
    """Check an array's kind and shape without reading it."""
    shape = tuple(int(length) for length in array.shape)
    kind = str(array.dtype).removeprefix("torch.")
    if not kind.startswith(("float", "bfloat")):
        raise RdfaError(f"{place}: the features are {kind}, not floating-point numbers")
    if len(shape) != 2 or shape[1] != dimension or shape[0] == 0:
        turned = "; transpose them" if len(shape) == 2 and shape[0] == dimension else ""
        raise RdfaError(f"{place}: the features have shape {shape}, the run needs (T, {dimension}){turned}")
    if isinstance(array, torch.Tensor):
        tensor = array

        def rows(part: slice) -> Any:
            return tensor[part].float().numpy()
    else:
        rows = array.__getitem__
    return VideoFeatures(video=video, place=place, shape=(shape[0], shape[1]), timing=timing, rows=rows)


def _reason(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:120]
