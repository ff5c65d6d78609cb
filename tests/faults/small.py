"""A checkout with a table of one small run, stage by stage in forked children, and what an undisturbed one makes."""

import atexit
import hashlib
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

from rdfa.files import sha256
from tests.conftest import ROOT, TINY
from tests.faults.forked import Ended, forked, rdfa
from tests.workflow.conftest import ROWS, small_table

RUN = "thumos14-rdfa-paper-sample-s0"
_SETTINGS = tuple(f"--set={setting}" for setting in TINY)
STAGES = {
    "fetch": ("fetch", RUN, *_SETTINGS),
    "train": ("train", RUN, *_SETTINGS),
    "detect": ("detect", RUN, *_SETTINGS),
    "evaluate": ("evaluate", RUN, *_SETTINGS),
    "table": ("table", "table1"),
    "figures": ("figures", "table1"),
}
TRACKED = ("train", "evaluate", "table", "figures")
"""The stages that log to MLflow."""
_COSTS = re.compile(rb"[\d.]+([^\d.]+)[\d.]+([^\d.]+last \(epoch)")
"""Two cells of a table, CPU s per step and peak MiB, and what comes after them."""
_TIMED = ("run.json", "log.txt")
"""Files with the time of day in them."""


def command(stage: str, tracked: bool = False) -> tuple[str, ...]:
    """A stage of the small run as a command line; logged to MLflow only if asked, which takes longer."""
    return (*STAGES[stage], *(["--no-tracking"] if stage in TRACKED and not tracked else []))


def run(stage: str, folder: Path, tracked: bool = False, timeout: float = 150.0) -> Ended:
    """Run a stage in a checkout."""
    return forked(rdfa(*command(stage, tracked)), folder, timeout)


def checkout(folder: Path, before: str | None = "fetch") -> Path:
    """A checkout in which all stages before this one were run; None: every stage."""
    shutil.copytree(made(before), folder, dirs_exist_ok=True)
    return folder


def results(folder: Path) -> dict[str, str]:
    """Checksum of each file that a fault may not change, by its path, and the bare presence of those that tell time."""
    found = {}
    for part in ("data", "results"):
        for path in sorted((folder / part).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(folder))] = "there" if path.name in _TIMED else _digest(path)
    return found


def _digest(path: Path) -> str:
    """Of a file's bytes; of a table without what the training has cost, which no two trainings have in common."""
    if not path.name.startswith("table"):
        return sha256(path)
    return hashlib.sha256(_COSTS.sub(rb"\1\2", path.read_bytes())).hexdigest()


def right(after: str) -> dict[str, str]:
    """The results of an undisturbed checkout after a stage."""
    return _results_before(following(after))


def differing(folder: Path, after: str) -> list[str]:
    """Files of a checkout that are not those of an undisturbed one after a stage."""
    found, whole = results(folder), right(after)
    return sorted(name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name))


def following(stage: str) -> str | None:
    """The stage after this one, if there is one."""
    return [*STAGES, None][list(STAGES).index(stage) + 1]


@cache
def _results_before(stage: str | None) -> dict[str, str]:
    return results(made(stage))


@cache
def made(before: str | None) -> Path:
    """A folder with what all stages before this one make, to be copied; made once."""
    folder = _base() / str(before)
    making = folder.with_suffix(".part")  # the campaign's limit may ring in here
    shutil.rmtree(making, ignore_errors=True)
    stages = list(STAGES)
    number = stages.index(before) if before else len(stages)
    if number == 0:
        shutil.copytree(ROOT / "params", making / "params")
        (making / "params" / "tables" / "table1.yaml").write_text(small_table(ROWS[:1]))
    else:
        shutil.copytree(made(stages[number - 1]), making)
        ended = run(stages[number - 1], making)
        assert ended.status == 0, ended.output
    return making.rename(folder)


@cache
def _base() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="faults-reference-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
