"""Snakemake's own lock: a call that is killed leaves it behind, and the next call would ask for `snakemake --unlock`.

Every call of the Snakefile holds a share of a lock that the system releases with its process. Who gets that lock alone
knows that nobody else lives, and may remove what Snakemake keeps in `.snakemake/locks`.
"""

import fcntl
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

_HELD: list[int] = []
"""Descriptors that stay open as long as this process lives. Jobs do not inherit them."""


def remove_lock_of_killed_calls(folder: Path = Path(".snakemake")) -> None:
    """Remove Snakemake's lock if no `snakemake` call on this checkout lives; hold a share of ours until this one ends.

    Where file systems do not lock across machines, one could not see the calls of the others: so a lock is removed on
    the machine alone whose call was here last. Where nothing can be locked or written, Snakemake's own lock and its
    message are what there is.
    """
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "rdfa.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        _HELD.append(descriptor)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left = sorted((folder / "locks").glob("*.lock"))
            machine, last = platform.node(), path.read_text(encoding="utf-8")
            if last not in ("", machine) and left:
                print(f"{folder}: the last call was on {last} and left Snakemake's lock", file=sys.stderr)
            else:
                path.write_text(machine, encoding="utf-8")
                for lock in left:
                    print(f"removing the lock of a snakemake call that was killed: {lock}", file=sys.stderr)
                    lock.unlink()
        fcntl.flock(descriptor, fcntl.LOCK_SH)
