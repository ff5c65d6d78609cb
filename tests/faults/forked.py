"""Functions in forked children: a process of its own for a few hundredths of a second, for the imports are done.

`warm()` once, then `Forked(work, folder)`: the work runs in `folder` as a command would, with its own process group,
standard output and error in one file, and signals as a shell gives them. `rdfa("train", ...)` is such a work.
"""

import ctypes
import faulthandler
import importlib
import logging
import os
import pkgutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PR_SET_PDEATHSIG = 1
TRACEBACK = "Traceback (most recent call last)"


@cache
def warm() -> None:
    """Import what all stages need, with one thread: a fork takes none of its parent's threads along."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import torch

    import rdfa.cli.commands
    import rdfa.inference.trained
    import rdfa.stages

    torch.set_num_threads(1)
    stages = [f"rdfa.stages.{found.name}" for found in pkgutil.iter_modules(rdfa.stages.__path__)]
    for name in (*stages, *_LATE):
        with suppress(ImportError):
            importlib.import_module(name)


_LATE = (
    "alembic.command",
    "email.policy",
    "encodings.ascii",
    "encodings.utf_16_be",
    "git",
    "matplotlib.backends.backend_svg",
    "mlflow.pyfunc.model",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.dbmodels.initial_models",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracing.provider",
    "mlflow.tracking._tracking_service.utils",
    "multiprocessing.synchronize",
    "opentelemetry.sdk.trace",
    "sqlalchemy.dialects.sqlite",
    "torch._dynamo",  # by optimisers; and its parts of the standard library may be closed to a child's user
    "torch.profiler",
)
"""What is imported by the call that needs it, and would be so in every child."""


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    status: int
    """Exit status; negative: the signal that killed it."""
    output: str
    """Standard output and error together."""

    @property
    def traced(self) -> bool:
        """Whether a user saw a traceback."""
        return TRACEBACK in self.output


class Forked:
    """Work in a forked child, begun at once."""

    def __init__(self, work: Callable[[], object], folder: Path, before: Callable[[], object] = lambda: None) -> None:
        """Begin.

        Args:
            work: what it returns is the exit status, None is 0; what it raises is traced, with status 1.
            folder: where it runs.
            before: called in the child first, to limit or to disguise it; its failure is the campaign's own.
        """
        warm()
        descriptor, name = tempfile.mkstemp(prefix="forked-")
        self._output = Path(name)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _child(work, folder, before, descriptor)
        os.close(descriptor)
        with suppress(OSError):  # the child does the same: whoever is first
            os.setpgid(self.pid, self.pid)

    def signal(self, number: int) -> None:
        """Send a signal to the child alone."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the child and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it and forget it."""
        self.kill()
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._output.unlink(missing_ok=True)

    def wait(self, timeout: float = 150.0, watch: Callable[[], object] | None = None) -> Ended:
        """Wait for its end; it is killed, and TimeoutError raised, when there was none in time.

        Args:
            watch: called every two milliseconds until then.
        """
        end = time.monotonic() + timeout
        pause = 0.002
        try:
            while True:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    break
                if time.monotonic() > end:
                    raise TimeoutError(f"nothing after {timeout:g} seconds; it had said: {self.said()[-2000:]}")
                if watch is not None:
                    watch()
                time.sleep(pause)
                pause = min(pause * 1.5, 0.05) if watch is None else pause
            return Ended(os.waitstatus_to_exitcode(status), self.said())
        except BaseException:  # of the caller's own limit too: no child outlives the one who waits for it
            self.end()
            raise
        finally:
            self._output.unlink(missing_ok=True)

    def said(self) -> str:
        """What it has printed so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")


def forked(
    work: Callable[[], object], folder: Path, timeout: float = 150.0, before: Callable[[], object] = lambda: None
) -> Ended:
    """Run work in a forked child and wait for it (see `Forked`)."""
    return Forked(work, folder, before).wait(timeout)


def together(
    works: Sequence[Callable[[], object]],
    folder: Path,
    timeout: float = 150.0,
    before: Callable[[], object] = lambda: None,
) -> list[Ended]:
    """Run several works in children that all begin at one moment; how each ended."""
    begin, held = os.pipe()

    def wait_for_all() -> None:
        before()
        os.close(held)
        os.read(begin, 1)  # ends when the last holder has closed the other end: the parent, below

    children = [Forked(work, folder, wait_for_all) for work in works]
    os.close(held)
    try:
        return [child.wait(timeout) for child in children]
    finally:
        os.close(begin)
        for child in children:
            child.end()


def rdfa(*arguments: str) -> Callable[[], int]:
    """The command line as work for a child."""

    def work() -> int:
        from rdfa.cli import main

        return main(arguments)

    return work


def _child(work: Callable[[], object], folder: Path, before: Callable[[], object], output: int) -> None:
    status = 1
    try:
        with suppress(OSError):
            os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a killed campaign leaves nobody behind
        faulthandler.disable()
        empty = os.open(os.devnull, os.O_RDONLY)
        for old, new in ((empty, 0), (output, 1), (output, 2)):
            os.dup2(old, new)
        # The parent's may be pytest's; a handler of logging would keep them.
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        logging.getLogger().handlers.clear()
        os.chdir(folder)
        before()
        value = work()
        status = value if isinstance(value, int) else 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
