"""Harmed inputs read in a forked child: an interpreter that crashes or hangs is counted and not suffered."""

import json
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tests.faults.campaign import HUNG, WRONG, Outcome

Case = TypeVar("Case")
MEMORY = 3 << 30
"""Bytes that a child may take beyond what it starts with: a broken length must not fill the machine."""


def judged(
    cases: Sequence[Case], judge: Callable[[Case], Outcome], name: Callable[[Case], str], limit: float = 20.0
) -> Iterator[Outcome]:
    """Judge each case in a child that has all that the parent has loaded; a new child follows one that died.

    Args:
        name: how a case is called where its child cannot tell.
        limit: seconds that a case may take.
    """
    done = 0
    while done < len(cases):
        child, pipe = _fork(cases[done:], judge)
        ended = ""
        try:
            for line in _lines(pipe, limit):
                done += 1
                verdict, what = json.loads(line)
                yield Outcome(verdict, what)
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            ended = HUNG
        finally:
            os.close(pipe)
            _, status = os.waitpid(child, 0)
        if done < len(cases):
            died = f"the interpreter died of signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "it ended"
            what = f"nothing after {limit:.0f} seconds" if ended else died
            yield Outcome(ended or WRONG, f"{name(cases[done])}: {what}")
            done += 1


def _fork(cases: Sequence[Case], judge: Callable[[Case], Outcome]) -> tuple[int, int]:
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    status = 1
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with os.fdopen(write, "w") as answers:
            for case in cases:
                outcome = judge(case)
                answers.write(json.dumps([outcome.verdict, outcome.what]) + "\n")
                answers.flush()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _lines(pipe: int, limit: float) -> Iterator[bytes]:
    """Lines as they come.

    Raises:
        TimeoutError: none came within the limit.
    """
    rest, last = b"", time.monotonic()
    while True:
        if not select.select([pipe], [], [], max(0.0, last + limit - time.monotonic()))[0]:
            raise TimeoutError
        block = os.read(pipe, 1 << 16)
        if not block:
            return
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            last = time.monotonic()
            yield line
            last = time.monotonic()
