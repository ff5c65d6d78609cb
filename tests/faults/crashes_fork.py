"""A command of rdfa in a process of its own, that a signal meets at a chosen moment.

Starting Python with PyTorch and MLflow takes seconds; so the processes are forks of this one, which has imported
everything. A moment is drawn from the *events* of a command, every one with the same chance: what it does to a file of
its folder and each statement that it sends to MLflow's database. Or from its time, which also meets what happens inside
libraries; or from the memory that it takes, as the kernel draws it.
"""

import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.forked import warm

SPOKEN = "said.txt"
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
class Ended:
    """How a process ended."""

    status: int
    """Its exit status; negative: the signal that killed it."""
    said: str
    """Standard output and error."""
    events: tuple[str, ...]
    """All events, in order; the last one is that before which the signal came."""
    seconds: float
    pages: int
    """The most pages that were seen in memory."""
    struck: bool
    """Whether the signal was sent; a process may end before its moment."""


def call(folder: Path, commands: Sequence[Sequence[str]], blow: Blow | None = None, limit: int | None = None) -> Ended:
    """Run commands of rdfa one after the other in `folder`, in one process, and wait for its end.

    Args:
        limit: bytes of address space that the process may take beyond what it has at its beginning.
    """
    warm()
    said, events = folder.parent / SPOKEN, folder.parent / EVENTS
    for path in (said, events):
        path.write_bytes(b"")
    sys.stdout.flush()
    sys.stderr.flush()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _child(folder, commands, blow, limit, said, events)
        except BaseException:  # as the interpreter does, which this process must not reach: it is a copy
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    try:
        status, pages, struck = _followed(child, blow, start)
    except BaseException:  # of the caller's limit
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    happened = events.read_text(errors="replace").splitlines()
    return Ended(
        status=os.waitstatus_to_exitcode(status),
        said=said.read_text(errors="replace"),
        events=tuple(event for event in happened if event != STRUCK),
        seconds=time.monotonic() - start,
        pages=pages,
        struck=struck or STRUCK in happened,
    )


def _followed(child: int, blow: Blow | None, start: float) -> tuple[int, int, bool]:
    """Wait for a child and send it its signal when time or memory say so.

    Returns:
        How it ended, the most pages it had, and whether it was sent a signal.
    """
    pages, struck = 0, False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status, pages, struck
        late = blow is not None and blow.seconds is not None and time.monotonic() - start >= blow.seconds
        pages = max(pages, _pages(child))
        if blow is not None and (late or (blow.memory is not None and pages >= blow.memory)):
            os.kill(child, blow.signal)
            blow, struck = None, True
        time.sleep(0.002)


def _child(
    folder: Path, commands: Sequence[Sequence[str]], blow: Blow | None, limit: int | None, said: Path, events: Path
) -> int:
    from rdfa.cli import main

    spoken = os.open(said, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(spoken, stream)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.chdir(folder)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT", "DVC_EXP_NAME"):
        os.environ.pop(name, None)
    _watch(folder, os.open(events, os.O_WRONLY | os.O_APPEND), blow)
    if limit is not None:
        _limit_memory(limit)
    for command in commands:
        try:
            status = main(list(command))
        except SystemExit as error:
            status = int(error.code or 0)
        if status:
            return status
    return 0


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
