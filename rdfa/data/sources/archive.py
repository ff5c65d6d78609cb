"""Archives of published data: found or downloaded, known by checksum, read in memory.

In order of reading: `local_archive` (where the archive is), `download`, `read_members` (what is in it, without ever
unpacking to a path that the archive chooses), `verify` (whether it is the published data).
"""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import re
import shutil
import sys
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from rdfa.errors import RdfaError
from rdfa.files import sha256
from rdfa.schema import Archive

MOST_MEMBERS, MOST_BYTES, MOST_BYTES_EACH = 10_000, 1 << 29, 1 << 26
"""Bounds on what is read from an archive, some four times what the largest source holds, against made-up ones."""
MOST_DOWNLOADED = 1 << 29
"""Bytes after which a download is given up."""
PATIENCE = 60
"""Seconds without an answer after which a download is given up."""
_BLOCK = 1 << 20
_DAMAGE = (
    gzip.BadGzipFile,
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    RuntimeError,
    ValueError,
)


def local_archive(archive: Archive, given: Path | None) -> Path | None:
    """The copy that the user points to, by argument or environment variable; None if by neither.

    Raises:
        RdfaError: it is not there.
    """
    named = os.environ.get(archive.variable)
    path = given or (Path(named) if named else None)
    if path is not None and not path.is_file():
        where = "given as archive" if given else f"named by the environment variable {archive.variable}"
        raise RdfaError(f"{path}: no such archive ({where})")
    return path


def download(archive: Archive, target: Path) -> None:
    """Download the archive to `target`, with progress on a terminal.

    Raises:
        RdfaError: no connection, no answer, or an implausibly large file; `target` is removed then.
    """
    print(f"downloading {archive.url}", file=sys.stderr)
    try:
        with _opened(archive) as answer, target.open("wb") as file:
            expected = int(answer.headers.get("Content-Length") or 0)
            done = 0
            for block in _blocks(answer, archive):
                file.write(block)
                done += len(block)
                _show_progress(done, expected)
        if done > MOST_DOWNLOADED:
            raise RdfaError(f"{archive.url}: larger than {MOST_DOWNLOADED >> 20} MB, not the archive")
        if done < expected:
            raise _unreachable(archive, f"it broke off after {done} of {expected} bytes")
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def read_members(path: Path, wanted: re.Pattern[str]) -> dict[str, bytes]:
    """Contents of the regular members of a .tar.* or .zip archive whose path ends like `wanted`, by file name.

    Links, devices and everything else are passed over; a zip that holds nothing but one zip is looked into.

    Raises:
        RdfaError: not an archive, truncated, damaged, too large, two members of one name, or a member whose path
            leads out of the archive.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path, wanted, nested=True)
    except _DAMAGE as error:
        raise RdfaError(f"{path}: truncated or damaged archive ({error}); get it again") from error
    except OSError as error:
        raise RdfaError(f"{path}: cannot be read as an archive ({error.strerror or error}); get it again") from error


def content_digest(members: dict[str, bytes]) -> str:
    """SHA-256 of name, size and bytes of each member in order of names: the same however they were packed."""
    digest = hashlib.sha256()
    for name in sorted(members):
        digest.update(f"{name}\n{len(members[name])}\n".encode())
        digest.update(members[name])
    return digest.hexdigest()


def verify(path: Path, members: dict[str, bytes], archive: Archive) -> None:
    """Refuse an archive unless its own checksum or that of its content is among the accepted ones."""
    content = content_digest(members)
    if content not in archive.sha256:
        whole = sha256(path)
        if whole not in archive.sha256:
            accepted = ", ".join(checksum[:16] for checksum in archive.sha256)
            raise RdfaError(
                f"{path}: wrong checksum, not the published data (SHA-256 of the archive {whole[:16]}..., of its "
                f"{len(members)} files {content[:16]}...;\naccepted are those that start with {accepted}); get it again"
            )


class _Entry(NamedTuple):
    """A regular member: its path in the archive, its declared size, and a call that gives its bytes."""

    name: str
    size: int
    read: Callable[[], bytes]


def _read(file: IO[bytes], path: Path, wanted: re.Pattern[str], nested: bool) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    inner: list[_Entry] = []
    total = 0
    entries = _zip_entries(file, path) if zipfile.is_zipfile(file) else _tar_entries(file, path)
    for entry in entries:
        place = PurePosixPath(entry.name)
        if place.is_absolute() or ".." in place.parts or "\\" in entry.name:
            raise RdfaError(f"{path}: member {entry.name!r} leads out of the archive; refused")
        if place.suffix == ".zip":
            inner.append(entry)
        if not wanted.search(entry.name):
            continue
        total += entry.size
        if entry.size > MOST_BYTES_EACH or total > MOST_BYTES:
            raise RdfaError(f"{path}: member {entry.name!r} unpacks to more than the data set has; refused")
        if place.name in members:
            raise RdfaError(f"{path}: two members are called {place.name!r}; refused")
        members[place.name] = entry.read()
    if not members and len(inner) == 1 and nested and inner[0].size <= MOST_BYTES:
        return _read(io.BytesIO(inner[0].read()), path, wanted, nested=False)
    return members


def _zip_entries(file: IO[bytes], path: Path) -> Iterator[_Entry]:
    packed = zipfile.ZipFile(file)
    for count, info in enumerate(packed.infolist()):
        _refuse_many(count, path)
        if not info.is_dir() and info.external_attr >> 28 in (0, 0o10):  # no type given, or a regular file
            yield _Entry(info.filename, info.file_size, partial(_zip_bytes, packed, info))


def _zip_bytes(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with packed.open(info) as opened:
        return _exactly(opened, info.file_size)


def _refuse_many(count: int, path: Path) -> None:
    if count >= MOST_MEMBERS:
        raise RdfaError(f"{path}: more than {MOST_MEMBERS} members; refused")


def _tar_entries(file: IO[bytes], path: Path) -> Iterator[_Entry]:
    with tarfile.open(fileobj=_Bounded(_unpacked(file), path), mode="r|") as packed:  # members as they come by
        for count, info in enumerate(packed):
            _refuse_many(count, path)
            opened = packed.extractfile(info) if info.isreg() else None
            if opened is not None:
                yield _Entry(info.name, info.size, partial(_exactly, opened, info.size))


def _unpacked(file: IO[bytes]) -> Any:
    """A tar file without its compression."""
    file.seek(0)
    start = file.read(6)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(file)
    return lzma.LZMAFile(file) if start == b"\xfd7zXZ\0" else file


class _Bounded(io.RawIOBase):
    """An unpacked stream of at most `MOST_BYTES`: what is passed over costs time, and headers cost memory."""

    def __init__(self, file: Any, path: Path) -> None:
        self._file, self._path, self._got = file, path, 0

    def read(self, size: int = -1, /) -> bytes:
        data: bytes = self._file.read(min(size, MOST_BYTES + 1) if size >= 0 else MOST_BYTES + 1)
        self._got += len(data)
        if self._got > MOST_BYTES:
            raise RdfaError(f"{self._path}: unpacks to more than {MOST_BYTES >> 20} MB; refused")
        return data


def _exactly(opened: IO[bytes], size: int) -> bytes:
    """As many bytes as the archive declares (the size that was checked), never more."""
    data = opened.read(size + 1)
    if len(data) != size:
        raise EOFError(f"a member has {len(data)} bytes, not {size}")
    return data


def _opened(archive: Archive) -> Any:
    """The server's answer. What fails here and in `_blocks` is the network's fault, unlike a failing write."""
    try:
        return urllib.request.urlopen(archive.url, timeout=PATIENCE)  # noqa: S310 (schema.Address)
    except (OSError, HTTPException, ValueError) as error:
        raise _unreachable(archive, getattr(error, "reason", None) or error) from error


def _blocks(answer: Any, archive: Archive) -> Iterator[bytes]:
    got = 0
    while got <= MOST_DOWNLOADED:
        try:
            block = answer.read(_BLOCK)
        except (OSError, HTTPException) as error:
            raise _unreachable(archive, error) from error
        if not block:
            return
        got += len(block)
        yield block


def _unreachable(archive: Archive, reason: object) -> RdfaError:
    return RdfaError(
        f"{archive.url}: cannot be downloaded ({reason});\n"
        f"get the file on another machine and give its path in the environment variable {archive.variable}"
    )


def _show_progress(done: int, expected: int) -> None:
    if sys.stderr.isatty():
        of = f" of {expected / 1e6:.0f}" if expected else ""
        text = f"\r{done / 1e6:.0f}{of} MB"
        print(
            text[: shutil.get_terminal_size().columns],
            end="\n" if done == expected else "",
            file=sys.stderr,
            flush=True,
        )
