"""A user's feature files, as they are: a folder with a file per video, or one HDF5 file.

In order of reading: `open_files`; the two forms; `find_layout` and `as_steps`, from a stored array to (T, C).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rdfa.data.hdf5_arrays import DAMAGE, Arrays, said
from rdfa.data.hdf5_arrays import ENDINGS as HDF5
from rdfa.data.sources.own_digest import listed
from rdfa.data.tensors import SUFFIXES, read_tensor
from rdfa.errors import RdfaError, in_one_line

Layout = Literal["TC", "CT"]


class FeatureFolder:
    """A folder with one `.npy` or `.pt` file per video."""

    def __init__(self, path: Path, suffix: str) -> None:
        self.path, self.suffix = path, suffix
        self._files = listed(path, suffix)
        self.videos = tuple(self._files)

    def array(self, video: str) -> Any:
        """The stored array, mapped rather than read where the format allows."""
        return read_tensor(self._files[video])

    def place(self, video: str) -> str:
        """Where a video's features are, for a message."""
        return str(self._files[video])

    def attributes(self, video: str) -> Mapping[str, Any]:
        """Such files say nothing about themselves."""
        return {}


class FeatureFile:
    """One HDF5 file with an array per video (rdfa.data.hdf5_arrays)."""

    suffix = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays = Arrays(path)
        self.videos = tuple(self._arrays)

    def array(self, video: str) -> Any:
        """The stored array; its values are read when they are asked for."""
        return self._arrays[video]

    def place(self, video: str) -> str:
        """Where a video's features are, for a message."""
        return f"{self.path}: {self._arrays.name(video)}"

    def attributes(self, video: str) -> Mapping[str, Any]:
        """What the array says of itself, else the file."""
        return said(self.path, self._arrays[video])


Files = FeatureFolder | FeatureFile


def open_files(path: Path, suffix: str | None) -> Files:
    """Open a user's features.

    Args:
        suffix: what follows a video's name in a folder; None: the ending that all files in the folder share.

    Raises:
        RdfaError: nothing there, an unknown format, or a folder with several endings and no `suffix`.
    """
    if path.is_file() and path.suffix in HDF5:
        return FeatureFile(path)
    if not path.is_dir():
        what = "an HDF5 file must end in " + " or ".join(HDF5) if path.exists() else "no such file or folder"
        raise RdfaError(f"{path}: {what}; features are a folder of {', '.join(SUFFIXES)} files or one HDF5 file")
    if suffix is None:
        endings = [ending for ending in SUFFIXES if listed(path, ending)]
        if len(endings) != 1:
            raise RdfaError(
                f"{path}: has files that end in {', '.join(endings) or 'none of ' + ', '.join(SUFFIXES)}; "
                "say with --suffix what follows a video's name"
            )
        suffix = endings[0]
    if not suffix.endswith(SUFFIXES):
        raise RdfaError(f"the suffix {suffix!r} must end in {', '.join(SUFFIXES)}")
    return FeatureFolder(path, suffix)


def find_layout(files: Files, videos: Iterable[str], given: Layout | None) -> tuple[Layout, int]:
    """Which axis of the arrays is time, and the number of channels.

    Only what cannot be otherwise is inferred: channels are as many in each video, and steps are not.

    Raises:
        RdfaError: arrays that are not matrices, channels that differ, or both axes possible and none `given`.
    """
    first: set[int] = set()
    second: set[int] = set()
    for video in videos:
        shape = tuple(files.array(video).shape)
        if len(shape) != 2:
            raise RdfaError(f"{files.place(video)}: has shape {shape}, not two axes: steps and channels")
        first.add(shape[0])
        second.add(shape[1])
    axes: tuple[tuple[Layout, set[int]], ...] = (("TC", second), ("CT", first))
    possible = [name for name, channels in axes if len(channels) == 1]
    if not possible:
        raise RdfaError(f"{files.path}: neither axis has one length in all videos: channels must be as many in each")
    if given is None and len(possible) == 2:
        raise RdfaError(
            f"{files.path}: each array has shape ({first.pop()}, {second.pop()}), so it is not evident which axis is "
            "time;\nsay it: --layout TC for (steps, channels), --layout CT for (channels, steps)"
        )
    if given is not None and given not in possible:
        raise RdfaError(f"{files.path}: with --layout {given} the number of channels would differ between videos")
    layout = given or possible[0]
    return layout, (second if layout == "TC" else first).pop()


def steps_of(files: Files, video: str, layout: Layout) -> tuple[int, int]:
    """(T, C) of a video, without reading its values.

    Raises:
        RdfaError: not a matrix.
    """
    shape = tuple(files.array(video).shape)
    if len(shape) != 2:
        raise RdfaError(f"{files.place(video)}: has shape {shape}, not two axes: steps and channels")
    return (shape[0], shape[1]) if layout == "TC" else (shape[1], shape[0])


def as_steps(files: Files, video: str, layout: Layout) -> NDArray[np.floating]:
    """Features of a video as they are stored, (T, C); double precision becomes single, half stays half.

    Raises:
        RdfaError: not a matrix, or not of floating point.
    """
    steps_of(files, video, layout)
    try:
        array = np.asarray(files.array(video)[...])
    except DAMAGE as error:
        raise RdfaError(f"{files.place(video)}: cannot be read ({in_one_line(error)})") from error
    if array.dtype.kind != "f":
        raise RdfaError(f"{files.place(video)}: holds {array.dtype}, not floating-point numbers")
    kind = np.float16 if array.dtype.itemsize == 2 else np.float32
    with np.errstate(over="ignore"):  # what is too large for single precision is found infinite by whoever writes it
        return np.ascontiguousarray(array if layout == "TC" else array.T, dtype=kind)


def told(attributes: Mapping[str, Any], name: str) -> float | None:
    """A positive number among what a file says of a video's features; None if there is none."""
    value = attributes.get(name)
    return float(value) if isinstance(value, int | float | np.integer | np.floating) and value > 0 else None
