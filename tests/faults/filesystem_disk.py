"""A disk that fails or is slow below Python, so that HDF5 and SQLite meet it too: a library that is loaded first."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from rdfa.ops.selective_scan.build import find_compiler
from tests.conftest import ROOT
from tests.faults.campaign import SURVIVED, WRONG, NotHere, Outcome, Scene
from tests.faults.forked import Ended
from tests.faults.small import STAGES, checkout, command, results, right
from tests.faults.verdicts import bad_refusal, mended

_SOURCE = Path(__file__).with_name("failing_disk.cpp")
_DONE = {"fetch": 8, "train": 10, "detect": 6, "evaluate": 8, "table": 4, "figures": 4}
"""Faults of each stage in the full form."""


def dying(scene: Scene) -> Iterator[Outcome]:
    """From one read or write on, all that touch the checkout's files fail (EIO); then the disk is well again."""
    library = _library(scene.folder)
    stages = [stage for stage, count in _DONE.items() for _ in range(count)] if scene.full else ["evaluate"]
    calls: dict[str, int] = {}
    for stage in stages:
        if stage not in calls:
            calls[stage] = _calls(scene.folder, library, stage)
        root = checkout(scene.folder / "checkout", stage)
        before, first = results(root), scene.random.randint(1, calls[stage])
        ended = _on_disk(root, library, stage, DISK_FAILS_FROM=str(first))
        yield _judged(root, stage, ended, before, f"rdfa {stage}, whose disk dies at call {first} of {calls[stage]}")
        shutil.rmtree(root)


def _judged(root: Path, stage: str, ended: Ended, before: dict[str, str], what: str) -> Outcome:
    """A right result (the error hit what can be done without), or a message; then the next call mends."""
    if ended.status != 0:
        wrong = bad_refusal(root, stage, ended, before, what)
        if wrong:
            return wrong
    elif ended.traced or results(root) != right(stage):
        return Outcome(WRONG, f"{what}: said to be done: {ended.output[-1500:]}")
    return mended(root, stage, what, tracked=True)


def slow(scene: Scene) -> Iterator[Outcome]:
    """Every read and write of the checkout's files takes one to three milliseconds longer."""
    library = _library(scene.folder)
    root = checkout(scene.folder / "checkout", "fetch")
    for stage in list(STAGES)[: scene.count(1, len(STAGES))]:
        ended = _on_disk(root, library, stage, DISK_MICROSECONDS="1000")
        if ended.status == 0 and not ended.traced and results(root) == right(stage):
            yield Outcome(SURVIVED)
        else:
            yield Outcome(WRONG, f"rdfa {stage} on a slow disk: {ended.status}, {ended.output[-1500:]}")


def _calls(folder: Path, library: Path, stage: str) -> int:
    """How often a stage reads and writes a file of its checkout."""
    root, count = checkout(folder / "counted", stage), folder / "count"
    ended = _on_disk(root, library, stage, DISK_COUNT=str(count))
    assert ended.status == 0, ended.output
    shutil.rmtree(root)
    return int(count.read_text())


def _on_disk(root: Path, library: Path, stage: str, **settings: str) -> Ended:
    call = [sys.executable, "-m", "rdfa", *command(stage, tracked=True)]
    disk = {"LD_PRELOAD": str(library), "DISK_FOLDER": str(root.resolve()), **settings}
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        call, cwd=root, env=variables | disk, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=200
    )
    return Ended(done.returncode, done.stdout.decode(errors="replace"))


@cache
def _library(folder: Path) -> Path:
    compiler = find_compiler()
    if sys.platform != "linux" or compiler is None:
        raise NotHere("only on Linux with a C++ compiler")
    target = folder / "failing_disk.so"
    call = [*compiler, "-shared", "-fPIC", "-O1", "-o", str(target), str(_SOURCE), "-ldl"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHere(f"the compiler does not make the library: {done.stderr[-300:]}")
    return target
