"""HDF5 files that somebody else wrote: one array per video, in whatever groups; rdfa's own store is such a file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py

from rdfa.errors import RdfaError, in_one_line

ENDINGS = (".h5", ".hdf5")
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What h5py raises on damaged files."""


class Arrays(Mapping[str, h5py.Dataset]):
    """The arrays of a file by the last part of their names, sorted; each is opened when it is asked for.

    An open array holds 64 KiB and what was last read of it: of tens of thousands of videos that would be gigabytes.

    Raises:
        RdfaError: no such file, damaged (from any method that reads), an array whose values lie in another file, or two
            arrays of one name.
    """

    def __init__(self, path: Path) -> None:
        found: list[tuple[str, bool]] = []

        def note(_: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found.append((str(item.name), bool(item.external or item.is_virtual)))

        try:
            self._file = h5py.File(path, "r", locking="best-effort")
            self._file.visititems(note)  # hard links only: a link to another file is not followed
        except FileNotFoundError as error:
            raise RdfaError(f"{path}: no such file") from error
        except DAMAGE as error:
            raise damaged(path, error) from error
        names: dict[str, str] = {}
        for name, elsewhere in found:
            video = name.rpartition("/")[2]
            if elsewhere:
                raise RdfaError(f"{path}: {name[1:]}: its values lie in another file; copy them into this one")
            if video in names:
                raise RdfaError(f"{path}: two arrays are called {video!r}: {names[video]} and {name}")
            names[video] = name
        self.path, self._names = path, dict(sorted(names.items()))

    def __getitem__(self, video: str) -> h5py.Dataset:
        name = self._names[video]
        try:
            return self._file[name]
        except DAMAGE as error:
            raise damaged(self.path, error) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, video: str) -> str:
        """The whole name of a video's array in the file."""
        return self._names[video]


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
    return RdfaError(f"{path}: not a whole HDF5 file ({in_one_line(error)})")
