"""File systems of a few kilobytes, and read-only ones, in a mount namespace that ends with this process."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.faults.campaign import NotHere

_CLONE_NEWNS = 0x00020000


@cache
def own_mounts() -> None:
    """Let this process and its children have mounts that nobody else sees."""
    if os.geteuid() != 0:
        raise NotHere("only root may mount")
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        raise NotHere(f"no mount namespace here ({os.strerror(ctypes.get_errno())})")
    _mount("--make-rprivate", "/")


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """An empty file system of `size` bytes at `folder`."""
    own_mounts()
    folder.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(folder))
    try:
        yield
    finally:
        unmount(folder)


def resize(folder: Path, size: int) -> None:
    """Give a small disk another size, which may not be below what it holds."""
    _mount("-o", f"remount,size={size}", str(folder))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that root cannot write to either."""
    own_mounts()
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,ro,bind", str(folder))
        yield
    finally:
        unmount(folder)


def unmount(folder: Path) -> None:
    """Take a file system away, even one whose files are open: what an unplugged or unreachable disk is."""
    subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise NotHere(f"mount {' '.join(arguments)}: {done.stderr.strip()}")
