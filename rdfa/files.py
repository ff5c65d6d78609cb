"""Files that are whole or absent: atomic writing, JSON with readable errors, checksums and seals."""

import glob
import hashlib
import json
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from rdfa.errors import RdfaError

SEAL = '"sealed": "'
"""What the checksum at the end of a sealed JSON file follows; it is of all bytes before this."""
_SEALED = re.compile(re.escape(SEAL).encode() + rb'([0-9a-f]{64})"\s*}+\s*$')
_TAIL = 160
"""Bytes at the end of a file in which a seal is."""


@contextmanager
def written_whole(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` only if the block succeeds.

    A reader therefore finds the old file or the new one, never half of one. The temporary file
    is removed when the block fails; one that a killed process left, when `path` is written next.

    Raises:
        RdfaError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.{_place()}.{os.getpid()}.", suffix=".part"
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp and some writers make it private
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RdfaError(f"{path}: cannot be written ({error.strerror or error}); nothing was left there") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files that processes of this machine left beside `path` when they were killed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{_place()}.*.part"):
        try:
            os.kill(int(left.name.split(".")[-3]), 0)
        except ProcessLookupError:
            left.unlink(missing_ok=True)
        except (OSError, ValueError):  # it lives, as somebody else's
            continue


@cache
def _place() -> str:
    """A name for where process numbers mean what they mean here: this machine, this container."""
    with suppress(OSError):
        return hashlib.sha256(f"{platform.node()} {os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()[:8]
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all (see `written_whole`)."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any, indent: int | None = 1) -> None:
    """Write `value` as JSON, whole or not at all; refuses NaN and infinities, which are not JSON."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n")


def write_sealed(path: Path | str, value: dict[str, Any]) -> None:
    """Write an object as JSON like `write_json`, with a last entry `sealed` by which `read_json` knows harm."""
    head, _, tail = json.dumps(value | {"sealed": ""}, indent=1, allow_nan=False, ensure_ascii=False).rpartition(SEAL)
    write_text(path, f"{head}{SEAL}{seal(head.encode())}{tail}\n")


def seal(before: bytes) -> str:
    """The seal of what stands before it."""
    return hashlib.sha256(before).hexdigest()


def read_json(
    path: Path | str,
    *,
    object_hook: Callable[[dict[str, Any]], Any] | None = None,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Read a JSON file; the hooks are the decoder's own, which see each object while the file is being read.

    Raises:
        RdfaError: no such file, unreadable, empty, not UTF-8, not JSON (with line and column), or not what was sealed.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        _refuse_broken_seal(path, data)
        text = data.decode("utf-8")
        if not text.strip():
            raise RdfaError(f"{path}: the file is empty")
        content = json.loads(text, object_hook=object_hook, object_pairs_hook=object_pairs_hook)
    except FileNotFoundError as error:
        raise RdfaError(f"{path}: no such file") from error
    except OSError as error:
        raise RdfaError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, a number of 5000 digits
        raise RdfaError(f"{path}: not a JSON file ({error})") from error
    if isinstance(content, dict):
        content.pop("sealed", None)
    return content


def _refuse_broken_seal(path: Path, data: bytes) -> None:
    found = _SEALED.search(data, max(0, len(data) - _TAIL))
    if found and seal(data[: found.start()]) != found[1].decode():
        raise RdfaError(
            f'{path}: damaged: what it holds is not what its seal ("sealed", at its end) was made of; bring the file '
            'back, or remove it to have it made again (after a change of your own remove the entry "sealed")'
        )


def not_a_formula(text: str) -> str:
    """Text for a cell of a CSV file: what a spreadsheet would run as a formula gets an apostrophe before it."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
