"""How what came after a fault is judged, the same for the kinds of several groups."""

import errno
import os
import re
from pathlib import Path

from tests.faults.campaign import LOST, SURVIVED, WRONG, Outcome
from tests.faults.forked import Ended
from tests.faults.small import differing, results, right, run

_ERRORS = (
    *(errno.ENOSPC, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EIO),
)
CAUSES = (
    "disk is full",
    "disk I/O error",
    "database disk image is malformed",  # SQLite's word for a page that it cannot read, too
    "no such file",
    "no such checkpoint",
    "not there",
    *(os.strerror(number) for number in _ERRORS),
)
"""In the words of SQLite, of rdfa and of the system."""


def bad_message(ended: Ended) -> str:
    """What is wrong with the way in which a command refused; nothing if it named a file and the cause."""
    if ended.traced:
        return "a traceback"
    if ended.status != 2:
        return f"exit status {ended.status}"
    said = ended.output[ended.output.find("rdfa: error: ") :]
    if not said.startswith("rdfa: error: "):
        return "no message"
    if not re.search(r"(?:data|results|checkpoints|mlflow|mlartifacts)\b", said):
        return "a message without a file"
    return "" if any(cause in said for cause in CAUSES) else "a message without a cause"


def half_written(folder: Path, stage: str, before: dict[str, str]) -> list[str]:
    """Files of a checkout that are neither the old ones nor the right ones."""
    whole = right(stage)
    return [name for name, digest in results(folder).items() if digest not in (whole.get(name), before.get(name))]


def left_over(folder: Path) -> list[str]:
    """Temporary files in a checkout."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*") if path.suffix in (".part", ".old")]


def mended(folder: Path, stage: str, what: str, tracked: bool = False) -> Outcome:
    """Whether a stage, called again without cleaning, ends in the right results."""
    again = run(stage, folder, tracked)
    if again.traced or again.status != 0:
        return Outcome(LOST, f"{what}; the next call: {again.status}, {again.output[-1500:]}")
    others, left = differing(folder, stage), left_over(folder)
    if others or left:
        return Outcome(WRONG, f"{what}; after the next call differ {others}, left over {left}")
    return Outcome(SURVIVED)


def bad_refusal(folder: Path, stage: str, ended: Ended, before: dict[str, str], what: str) -> Outcome | None:
    """A defect of a refusal, if it has one: its message, or what it left behind."""
    problem = bad_message(ended)
    if problem:
        return Outcome(WRONG, f"{what}: {problem}: {ended.output[-1500:]}")
    half, left = half_written(folder, stage, before), left_over(folder)
    if half or left:
        return Outcome(WRONG, f"{what}: half-written {half}, left over {left}")
    return None
