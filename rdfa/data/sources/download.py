"""Downloads over HTTP that go on where they stopped, and are trusted only when their checksum is right."""

import hashlib
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from rdfa.errors import RdfaError

_BLOCK = 1 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses that a later try may not meet."""
_LONGEST_PAUSE = 8.0
"""Seconds between two tries, at most."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file that can be downloaded."""

    url: str
    size: int | None
    """Bytes, where the server has said."""
    checksum: str
    """`sha256:` or, for small files of a git repository, `git:` (SHA-1 of the blob), and hexadecimal digits."""


def download(
    remote: Remote,
    target: Path,
    *,
    timeout: float,
    attempts: int,
    authorization: str | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Download a file to `target`, going on from `target`.part; `target` is whole and right, or absent.

    Args:
        timeout: seconds without a byte after which a try has failed.
        attempts: tries in a row that may bring no byte.
        authorization: header for the first host only, not for those it redirects to.
        progress: called with the number of bytes that have come, or that were there.

    Raises:
        RdfaError: refused by the server, out of reach, another checksum (what came is removed), or a full disk (what
            came is kept).
    """
    part = target.with_name(f"{target.name}.part")
    if remote.size is None:
        part.unlink(missing_ok=True)  # it cannot be told whether the file is whole already
    there = _there(part)
    progress(there)
    failures = 0
    while remote.size is None or there < remote.size:
        try:
            there = _append(remote, part, there, timeout, authorization, progress)
        except _BrokenOffError as error:
            came = _there(part)
            failures = 0 if came > there else failures + 1
            there = came
            if failures >= attempts:
                raise RdfaError(
                    f"{remote.url}: cannot be downloaded ({error}; {attempts} tries in a row); the same command goes "
                    f"on from byte {there}"
                ) from error
            time.sleep(min(0.25 * 2**failures, _LONGEST_PAUSE))
        else:
            if remote.size is None:
                break
    _verify(remote, part)
    part.replace(target)


def checksum(path: Path, kind: str) -> str:
    """`sha256:...` or `git:...` of a file."""
    with path.open("rb") as file:
        if kind == "sha256":
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while block := file.read(_BLOCK):
            digest.update(block)
        return f"git:{digest.hexdigest()}"


def _there(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


class _BrokenOffError(Exception):
    """The connection failed in a way that may pass."""


def _append(
    remote: Remote,
    part: Path,
    there: int,
    timeout: float,
    authorization: str | None,
    progress: Callable[[int], object],
) -> int:
    """Ask for what is missing and append it to `part`; returns the bytes that are there then."""
    with _opened(remote, there, timeout, authorization) as answer:
        if there and answer.status != 206:  # the server sends the whole file again
            progress(-there)
            there = 0
        try:
            with part.open("ab" if there else "wb") as file:
                for block in _blocks(answer):
                    file.write(block)
                    there += len(block)
                    progress(len(block))
                    if remote.size is not None and there > remote.size:
                        raise RdfaError(f"{remote.url}: sends more than the {remote.size} bytes that it has; refused")
        except OSError as error:
            raise RdfaError(
                f"{part}: cannot be written ({error.strerror or error}); what has come is kept, make room and run the "
                "same command again"
            ) from error
    if remote.size is not None and there < remote.size:
        raise _BrokenOffError(f"it broke off after {there} of {remote.size} bytes")
    return there


def _opened(remote: Remote, there: int, timeout: float, authorization: str | None) -> Any:
    request = urllib.request.Request(remote.url)  # noqa: S310 (schema.Address, or the Hub)
    if there:
        request.add_header("Range", f"bytes={there}-")
    if authorization:
        request.add_unredirected_header("Authorization", authorization)
    try:
        return urllib.request.urlopen(request, timeout=timeout)  # noqa: S310
    except HTTPError as error:
        if error.code in _PASSING:
            raise _BrokenOffError(f"HTTP {error.code}") from error
        raise RdfaError(f"{remote.url}: refused by the server (HTTP {error.code} {error.reason})") from error
    except (OSError, HTTPException, ValueError) as error:
        raise _BrokenOffError(getattr(error, "reason", None) or error) from error


def _blocks(answer: Any) -> Iterator[bytes]:
    while True:
        try:
            block = answer.read1(_BLOCK)
        except (OSError, HTTPException) as error:  # the network's fault, unlike a failing write
            raise _BrokenOffError(error) from error
        if not block:
            return
        yield block


def _verify(remote: Remote, part: Path) -> None:
    found = checksum(part, remote.checksum.split(":")[0])
    if found != remote.checksum:
        part.unlink()
        raise RdfaError(
            f"{remote.url}: what came has the checksum {found[:23]}..., not {remote.checksum[:23]}...; it was removed, "
            "run the same command again to download it anew"
        )
