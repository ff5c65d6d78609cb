"""Crashes of real `snakemake` calls: the machine goes down, Snakemake or its job is killed or asked to stop.

Each starts where an uninterrupted call was at the beginning of a step, and meets its signal at any moment of it.
"""

import csv
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import yaml

from tests.faults.campaign import LOST, SURVIVED, WRONG, NotHere, Outcome, Scene
from tests.faults.crashes_scene import contents, differences, running, shrink
from tests.workflow.conftest import Clone, clone_project, small_table

GOAL = "results/table1.csv"
STEPS = ("fetch", "train", "detect", "evaluate", "table")
UNSTEADY = ("CPU s per step", "peak MiB")
"""Columns of a table that no two trainings share."""
PATIENCE = 240.0
"""Seconds that a call may take."""
HITS = (
    ("snakemake and all that it started", signal.SIGKILL),
    ("snakemake alone", signal.SIGKILL),
    ("snakemake alone", signal.SIGTERM),
    ("snakemake and all that it started", signal.SIGINT),
    ("the job alone", signal.SIGKILL),
    ("the job alone", signal.SIGTERM),
)


def snakemake_killed(scene: Scene) -> Iterator[Outcome]:
    """A call that meets a signal, and the next call, without cleaning: each way to be hit in each step once."""
    if not scene.full:
        raise NotHere("calls of Snakemake take minutes; in the full form alone")
    clone = clone_project(scene.folder / "clone")
    table = yaml.safe_load(small_table((("thumos14", "paper"),)))
    shrink(table["rows"][0]["params"])
    (clone.root / "params" / "tables" / "table1.yaml").write_text(yaml.safe_dump(table))
    clone.snakemake()
    whole = results(clone.root)
    spent = seconds_of_steps(clone.root)
    scene.folder.joinpath("whole").mkdir()
    for name in made(clone.root):
        shutil.move(clone.root / name, scene.folder / "whole" / name)
    for step, (whom, sent) in itertools.product(STEPS, HITS):
        begin(clone, scene.folder / "whole", step)
        moment = scene.random.uniform(0, spent[step])
        session, said = hit(clone, step, whom, sent, moment)
        fault = f"{sent.name} to {whom}, {moment:.2f} s after the beginning of {step}"
        outcome = judged(clone, fault, said, whole)
        with suppress(ProcessLookupError):
            os.killpg(session, signal.SIGKILL)
        yield outcome


def hit(clone: Clone, step: str, whom: str, sent: signal.Signals, moment: float) -> tuple[int, str]:
    """Call `snakemake`, send the signal, and wait for the end of the call; returns its session and what it said."""
    with (clone.root / "said.txt").open("w+") as said:
        call = subprocess.Popen(
            ["snakemake", "--cores", "2", GOAL],
            cwd=clone.root,
            env=clone.environment(),
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while (job := job_of(call.pid, step)) is None and call.poll() is None:
                time.sleep(0.05)
            time.sleep(moment)
            if whom == "the job alone":
                job = job_of(call.pid, step)  # None: it has ended, and the signal comes too late
                if job is not None:
                    os.kill(job, sent)
            elif call.poll() is None and whom == "snakemake alone":
                os.kill(call.pid, sent)
            elif call.poll() is None:
                os.killpg(call.pid, sent)
            call.wait(PATIENCE)
        except BaseException:
            os.killpg(call.pid, signal.SIGKILL)
            raise
        said.seek(0)
        return call.pid, said.read()


def job_of(session: int, step: str) -> int | None:
    """The process of a session that runs a step of rdfa."""
    listed = subprocess.run(
        ["ps", "-ww", "-s", str(session), "-o", "pid=,args="], capture_output=True, text=True, check=False
    ).stdout
    for line in listed.splitlines():
        process, program, *arguments = line.split()
        if "python" in program and len(arguments) > 1 and arguments[0].endswith("rdfa") and arguments[1] == step:
            return int(process)
    return None


def judged(clone: Clone, fault: str, said: str, whole: dict[str, str]) -> Outcome:
    """What became of a call, after the next one."""
    again = clone.run("snakemake", "--cores", "2", GOAL, check=False)
    output = again.stdout + again.stderr
    if again.returncode:
        return Outcome(LOST, f"{fault}: the next call ended with {again.returncode}\n{output[-3000:]}")
    if other := differences(results(clone.root), whole):
        return Outcome(LOST, f"{fault}: the next call ends in other results: {', '.join(other[:8])}")
    if left := running(clone.root):
        return Outcome(LOST, f"{fault}: after the next call MLflow calls {', '.join(left)} running\n{output[-1500:]}")
    if "Traceback" in said + output:
        return Outcome(WRONG, f"{fault}: a traceback\n{(said + output)[-3000:]}")
    return Outcome(SURVIVED)


def begin(clone: Clone, whole: Path, step: str) -> None:
    """Put the clone where the uninterrupted call was when a step began."""
    for name in made(clone.root):
        shutil.rmtree(clone.root / name) if (clone.root / name).is_dir() else (clone.root / name).unlink()
    if step == "fetch":
        return
    for path in whole.iterdir():
        if step == "train" and path.name.startswith(("results", "mlflow.db", "mlartifacts")):
            continue
        copied = clone.root / path.name
        shutil.copytree(path, copied, symlinks=True) if path.is_dir() else shutil.copy2(path, copied)
    gone = {"detect": ("detections-*", "metrics-*"), "evaluate": ("metrics-*",)}.get(step, ())
    for pattern in gone:
        for path in (clone.root / "results" / "runs").glob(f"*/{pattern}"):
            path.unlink()
    for path in (clone.root / "results").glob("table1*"):
        path.unlink()


def made(root: Path) -> list[str]:
    """What calls make in a checkout."""
    names = ("data", "results", "checkpoints", "logs", "mlartifacts", ".snakemake")
    there = [name for name in names if (root / name).exists()]
    return there + [path.name for path in root.glob("mlflow.db*")]


def results(root: Path) -> dict[str, str]:
    """Every file of data and results; of the table what does not depend on time."""
    found = {name: digest for name, digest in contents(root).items() if not name.startswith("checkpoints/")}
    for ending in (".csv", ".md", ".tex", ".stale.csv"):
        found.pop(f"results/table1{ending}", None)
    with (root / GOAL).open(newline="") as file:
        rows = [{name: cell for name, cell in row.items() if name not in UNSTEADY} for row in csv.DictReader(file)]
    return found | {GOAL: str(rows)}


def seconds_of_steps(root: Path) -> dict[str, float]:
    """How long each job took, as Snakemake's benchmarks say."""
    found = {}
    for step in STEPS:
        (path,) = (root / "logs" / "benchmarks" / ("tables" if step == "table" else step)).rglob("*.tsv")
        with path.open(newline="") as file:
            found[step] = float(next(csv.DictReader(file, delimiter="\t"))["s"])
    return found
