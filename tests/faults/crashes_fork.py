"""A command of rdfa in a process of its own, that a signal meets at a chosen moment.

Starting Python with PyTorch and MLflow takes seconds; so the processes are forks of this one, which has imported
everything. A moment is drawn from the *events* of a command, every one with the same chance: what it does to a file of
its folder and each statement that it sends to MLflow's database. Or from its time, which also meets what happens inside
libraries; or from the memory that it takes, as the kernel draws it.
"""

import math
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.forked import Ended, Forked, rdfa

EVENTS = "events.txt"
STRUCK = "the signal"
"""Stands among the events where it was sent."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_ON_FILES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link", "os.symlink", "os.truncate")


@dataclass(frozen=True)
class Blow:
    """A signal and the moment at which it comes; the first of `event`, `seconds` and `memory` that is given."""

    signal: signal.Signals
    event: int | None = None
    """Just before this event, counted from 1."""
    among: str = ""
    """Count only events that this regular expression finds."""
    seconds: float | None = None
    """After this time."""
    memory: int | None = None
    """When so many pages are in memory."""

    def __str__(self) -> str:
        kind = f" that match {self.among!r}" if self.among else ""
        if self.event is not None:
            return f"{self.signal.name} before event {self.event}{kind}"
        return f"{self.signal.name} " + (
            f"after {self.seconds:.3f} s" if self.seconds is not None else f"at {self.memory} pages"
        )


@dataclass(frozen=True)
class Met(Ended):
    """How a process ended that a signal may have met."""

    events: tuple[str, ...]
    """All events, in order; the last one is that before which the signal came."""
    seconds: float
    pages: int
    """The most pages that were seen in memory."""
    struck: bool
    """Whether the signal was sent; a process may end before its moment."""


def call(folder: Path, commands: Sequence[Sequence[str]], blow: Blow | None = None, limit: int | None = None) -> Met:
    """Run commands of rdfa one after the other in `folder`, in one process, and wait for its end.

    Args:
        limit: bytes of address space that the process may take beyond what it has at its beginning.
    """
    events = folder.parent / EVENTS
    events.write_bytes(b"")

    def prepare() -> None:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT", "DVC_EXP_NAME"):
            os.environ.pop(name, None)
        _watch(folder, os.open(events, os.O_WRONLY | os.O_APPEND), blow)
        if limit is not None:
            _limit_memory(limit)

    start = time.monotonic()
    child = Forked(lambda: _all_of(commands), folder, before=prepare)
    pages, struck = 0, False

    def strike_in_time() -> None:
        nonlocal pages, struck
        pages = max(pages, _pages(child.pid))
        if blow is None or struck:
            return
        late = blow.seconds is not None and time.monotonic() - start >= blow.seconds
        if late or (blow.memory is not None and pages >= blow.memory):
            child.signal(blow.signal)
            struck = True

    ended = child.wait(timeout=math.inf, watch=strike_in_time)  # the kind's own limit ends it
    happened = events.read_text(errors="replace").splitlines()
    return Met(
        status=ended.status,
        output=ended.output,
        events=tuple(event for event in happened if event != STRUCK),
        seconds=time.monotonic() - start,
        pages=pages,
        struck=struck or STRUCK in happened,
    )


def _all_of(commands: Sequence[Sequence[str]]) -> int:
    return next((status for status in (rdfa(*command)() for command in commands) if status), 0)


def _watch(folder: Path, log: int, blow: Blow | None) -> None:
    """Write down every event from now on, and send the signal before its own."""
    import sqlalchemy
    from sqlalchemy.engine import Engine

    from rdfa.data.steady_file import SteadyFile

    left = blow.event if blow is not None and blow.event is not None else 0
    below, writing = f"{folder}{os.sep}", False

    def happens(what: str) -> None:
        nonlocal left, writing
        if writing:
            return
        writing = True
        os.write(log, f"{' '.join(what.split())[:120]}\n".encode())
        writing = False
        if blow is not None and left and re.search(blow.among, what):
            left -= 1
            if not left:
                os.write(log, f"{STRUCK}\n".encode())
                os.kill(os.getpid(), blow.signal)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITING or isinstance(path, int):
                return
        elif event not in _ON_FILES:
            return
        place = os.path.abspath(os.fsdecode(arguments[0]))
        if place.startswith(below):
            happens(f"{event} {place.removeprefix(below)}")

    plain = SteadyFile.write

    def write(self: SteadyFile, data: Any) -> int:
        happens("write to HDF5")
        return plain(self, data)

    SteadyFile.write = write  # type: ignore[method-assign]
    sqlalchemy.event.listen(
        Engine, "before_cursor_execute", lambda c, cursor, statement, *rest: happens(f"SQL {statement}")
    )
    sqlalchemy.event.listen(Engine, "commit", lambda connection: happens("SQL commit"))
    sys.addaudithook(hook)


def _limit_memory(more: int) -> None:
    import resource

    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + more, size + more))


def _pages(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
