"""How hostile input is given to rdfa, and what may come of it: a refusal in words, or a right result."""

import contextlib
import io
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rdfa.cli import main
from rdfa.errors import RdfaError
from rdfa.schema import invisible
from tests.conftest import ROOT
from tests.faults.campaign import SURVIVED, WRONG, Outcome

MARKER = "payload-ran"
"""A file that payloads would make."""


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


@contextlib.contextmanager
def inside(folder: Path, **variables: str) -> Iterator[Path]:
    """A working directory with the project's parameters, and variables of the environment."""
    if not (folder / "params").exists():
        (folder / "params").symlink_to(ROOT / "params")
    before, place = {name: os.environ.get(name) for name in variables}, Path.cwd()
    os.environ.update(variables)
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(place)
        for name, value in before.items():  # these alone: modules that were imported inside have set others
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def command(*arguments: str) -> tuple[int, str]:
    """Status and output of an `rdfa` command."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = main(arguments)
        except SystemExit as error:
            status = int(error.code or 0)
    return status, said.getvalue()


def refused(what: str, call: Callable[[], object], *told: object) -> Outcome:
    """Whether a call is refused with words, all of `told` among them, on a few visible lines."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            call()
    except RdfaError as error:
        return refusal(what, str(error), *told)
    except Exception:
        return Outcome(WRONG, f"{what}:\n{traceback.format_exc()}")
    return Outcome(WRONG, f"{what}: accepted")


def refused_command(what: str, arguments: tuple[str, ...], *told: object) -> Outcome:
    """The same of a command."""
    try:
        status, said = command(*arguments)
    except Exception:
        return Outcome(WRONG, f"{what}:\n{traceback.format_exc()}")
    if status != 2:
        return Outcome(WRONG, f"{what}: status {status}: {said[-300:]}")
    return refusal(what, said.strip(), *told)


def refusal(what: str, message: str, *told: object) -> Outcome:
    """Whether a message says what it must, and nothing that a terminal would obey."""
    absent = [str(each) for each in told if str(each) not in message]
    if absent:
        return Outcome(WRONG, f"{what}: the message does not say {absent}: {message[:300]!r}")
    if any(invisible(line) for line in message.split("\n")):
        return Outcome(WRONG, f"{what}: the message has control characters: {message[:300]!r}")
    return Outcome(SURVIVED)


def accepted_or_refused(what: str, call: Callable[[], object]) -> Outcome:
    """Whether a call ends in a result or in words."""
    try:
        call()
    except RdfaError as error:
        return refusal(what, str(error))
    except Exception:
        return Outcome(WRONG, f"{what}:\n{traceback.format_exc()}")
    return Outcome(SURVIVED)


def and_nothing_ran(outcome: Outcome, what: str, *places: Path) -> Outcome:
    """The outcome, unless a payload made its file."""
    for place in places:
        for marker in place.rglob(f"*{MARKER}*"):
            marker.unlink()
            return Outcome(WRONG, f"{what}: the payload ran")
    return outcome
