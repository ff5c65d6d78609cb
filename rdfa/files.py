"""Files that are whole or absent: atomic writing, JSON with readable errors, checksums."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rdfa.errors import RdfaError


@contextmanager
def written_whole(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` only if the block succeeds.

    A reader therefore finds the old file or the new one, never half of one. The temporary file
    is removed when the block fails.

    Raises:
        RdfaError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
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


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all (see `written_whole`)."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any, indent: int | None = 1) -> None:
    """Write `value` as JSON, whole or not at all; refuses NaN and infinities, which are not JSON."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(
    path: Path | str,
    *,
    object_hook: Callable[[dict[str, Any]], Any] | None = None,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Read a JSON file; the hooks are the decoder's own, which see each object while the file is being read.

    Raises:
        RdfaError: no such file, unreadable, empty, not UTF-8 or not JSON (with line and column).
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            raise RdfaError(f"{path}: the file is empty")
        return json.loads(text, object_hook=object_hook, object_pairs_hook=object_pairs_hook)
    except FileNotFoundError as error:
        raise RdfaError(f"{path}: no such file") from error
    except OSError as error:
        raise RdfaError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, a number of 5000 digits
        raise RdfaError(f"{path}: not a JSON file ({error})") from error


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
