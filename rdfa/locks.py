"""Locks by files: the system releases them when a process ends, however it ends."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from rdfa.errors import RdfaError


def lock_file(path: Path) -> FileLock:
    """A lock that a group can share, not taken yet: the umask says who may.

    Raises:
        RdfaError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise RdfaError(f"{path}: cannot be written ({error.strerror or error})") from error
    return FileLock(path)


def alone(name: str, root: Path, what: str) -> FileLock:
    """To hold while results of a table are written: nobody else writes the same or sets it aside (`untouched`)."""
    return lock_file(_place(root, name, what))


@contextmanager
def untouched(name: str, root: Path, what: str) -> Iterator[bool]:
    """Whether nobody writes these results of a table now; if so, nobody begins before the block ends."""
    lock = None
    try:
        with suppress(RdfaError):  # where no lock can be, nothing can be written either
            lock = lock_file(_place(root, name, what))
            lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        if lock is not None:
            lock.release()


def _place(root: Path, name: str, what: str) -> Path:
    return root / "checkpoints" / f"{name}.{what}.lock"
