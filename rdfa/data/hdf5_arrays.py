"""HDF5 files that somebody else wrote: one array per video, in whatever groups; rdfa's own store is such a file."""

from pathlib import Path
from typing import Any

import h5py

from rdfa.errors import RdfaError

ENDINGS = (".h5", ".hdf5")
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What h5py raises on damaged files."""


def arrays_by_video(path: Path) -> dict[str, h5py.Dataset]:
    """The arrays of a file by the last part of their names, sorted; their values are read when they are asked for.

    Raises:
        RdfaError: no such file, damaged, an array whose values lie in another file, or two arrays of one name.
    """
    found: list[h5py.Dataset] = []
    try:
        file = h5py.File(path, "r", locking="best-effort")
        # Hard links only: a link to another file is not followed.
        file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
        named = [(str(array.name), bool(array.external or array.is_virtual), array) for array in found]
    except FileNotFoundError as error:
        raise RdfaError(f"{path}: no such file") from error
    except DAMAGE as error:
        raise damaged(path, error) from error
    arrays: dict[str, h5py.Dataset] = {}
    for name, elsewhere, array in named:
        video = name.rpartition("/")[2]
        if elsewhere:
            raise RdfaError(f"{path}: {name[1:]}: its values lie in another file; copy them into this one")
        if video in arrays:
            raise RdfaError(f"{path}: two arrays are called {video!r}: {arrays[video].name} and {name}")
        arrays[video] = array
    return dict(sorted(arrays.items()))


def said(path: Path, array: h5py.Dataset) -> dict[str, Any]:
    """What an array says of itself, else its file.

    Raises:
        RdfaError: the file is damaged there.
    """
    try:
        return dict(array.file.attrs) | dict(array.attrs)
    except DAMAGE as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: BaseException) -> RdfaError:
    """The error that says so."""
    return RdfaError(f"{path}: not a whole HDF5 file ({' '.join(str(error).split())[:120]})")
