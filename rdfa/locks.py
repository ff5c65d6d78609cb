"""Locks by files: the system releases them when a process ends, however it ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from filelock import FileLock, Timeout

from rdfa.errors import RdfaError

P = ParamSpec("P")
R = TypeVar("R")
Stage = Callable[Concatenate[str, Path, P], R]
"""Of the name of a table, the root, and more."""


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


def writes_alone(
    what: str,
) -> Callable[[Stage[P, R]], Stage[P, R]]:
    """Decorate a stage: while it writes, nobody else writes the same or sets it aside (`untouched`)."""

    def decorate(stage: Stage[P, R]) -> Stage[P, R]:
        @wraps(stage)
        def alone(name: str, root: Path, /, *args: P.args, **kwargs: P.kwargs) -> R:
            with lock_file(_place(root, name, what)):
                return stage(name, root, *args, **kwargs)

        return alone

    return decorate


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
