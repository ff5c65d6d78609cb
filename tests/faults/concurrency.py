"""Several at once: workflows on one checkout, runs on one store, trainings and fetches of the same, readers of what is
being written."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.campaign import LOST, SURVIVED, WRONG, Kind, NotHere, Outcome, Scene
from tests.faults.concurrency_readers import readers, replaced_under_readers
from tests.faults.concurrency_stores import postgresql, sqlite
from tests.faults.filesystem_users import cloned
from tests.faults.forked import TRACEBACK, Forked, forked, rdfa, together
from tests.faults.small import checkout, command, made, results, right
from tests.faults.verdicts import mended
from tests.workflow.conftest import Clone

_LOCKED = ("cannot be locked", "--unlock")
"""What Snakemake says of a checkout in which another one works, and what to do if there is none."""


def two_workflows(scene: Scene) -> Iterator[Outcome]:
    """A second `snakemake` while one is at work: it says so, or finds all done; the first is not disturbed."""
    if not scene.full:
        raise NotHere("in the full form only: several starts of Snakemake take long")
    clone = cloned(scene.folder / "clone")
    for stage in ("evaluate", "fetch", "figures", "train"):
        _back_to(clone, stage)
        target = "results/figures/table1" if stage == "figures" else "results/table1.csv"
        first, second = ["snakemake", "--cores", "1", "--quiet", "all", "--", target], ["snakemake", "-c1", target]
        yield _beside(scene, clone, first, second, "figures" if stage == "figures" else "table")


def dvc_beside_snakemake(scene: Scene) -> Iterator[Outcome]:
    """`dvc repro` while `snakemake` is at work, and the other way round."""
    if not scene.full:
        raise NotHere("in the full form only: two starts of DVC take long")
    clone = cloned(scene.folder / "clone")
    snakemake, dvc = ["snakemake", "--cores", "1", "results/table1.csv"], ["dvc", "repro"]
    for first, second in ((snakemake, dvc), (dvc, snakemake)):
        _back_to(clone, "train")
        yield _beside(scene, clone, first, second, "table")
    again = clone.run("dvc", "repro", check=False)
    said = again.stdout + again.stderr
    if again.returncode or "Traceback" in said:
        yield Outcome(LOST, f"dvc repro after both: {said[-1500:]}")
    else:
        yield Outcome(SURVIVED)


def _back_to(clone: Clone, stage: str) -> None:
    """What is there before a stage, and nothing that comes after it."""
    for part in ("data", "results", "checkpoints"):
        shutil.rmtree(clone.root / part, ignore_errors=True)
        if (made(stage) / part).exists():
            shutil.copytree(made(stage) / part, clone.root / part)


def _beside(scene: Scene, clone: Clone, first: list[str], second: list[str], after: str) -> Outcome:
    what = f"{' '.join(first)}, and {' '.join(second)} beside it"
    quiet = clone.environment()
    log = clone.root.parent / "first.log"
    with log.open("w") as file:
        worker = subprocess.Popen(first, cwd=clone.root, env=quiet, stdout=file, stderr=file, start_new_session=True)
    try:
        while worker.poll() is None and not list(clone.root.glob(".snakemake/locks/*")):
            time.sleep(0.02)
        time.sleep(scene.random.random() * 0.5)
        beside = clone.run(*second, check=False)
        alone = worker.poll() is not None
        worker.wait()
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
    said = beside.stdout + beside.stderr
    if worker.returncode != 0:
        return Outcome(LOST, f"{what}: the first: {log.read_text()[-1500:]}")
    if beside.returncode and (not all(words in said for words in _LOCKED) or TRACEBACK in said) and not alone:
        return Outcome(WRONG, f"{what}: the second: {said[-1500:]}")
    found, whole = results(clone.root), right(after)
    differing = sorted(name for name in whole if found.get(name) != whole[name])
    if differing:
        return Outcome(WRONG, f"{what}: differ {differing}")
    again = clone.run(
        "snakemake", "--cores", "1", first[-1] if first[-1].startswith("results") else second[-1], check=False
    )
    if again.returncode or "Nothing to be done" not in again.stdout + again.stderr:
        return Outcome(LOST, f"{what}; then: {(again.stdout + again.stderr)[-1500:]}")
    return Outcome(SURVIVED)


def dry_runs(scene: Scene) -> Iterator[Outcome]:
    """What a `snakemake -n` sets aside, a table or figures of other runs, again and again while they are written."""
    for number in range(scene.count(2, 12)):
        stage = ("table", "figures")[number % 2]
        root = checkout(scene.folder / "checkout", stage)
        if number % 4 > 1:  # of other runs
            left = root / "results" / {"table": "table1.csv", "figures": "figures/table1/old.svg"}[stage]
            left.parent.mkdir(parents=True, exist_ok=True)
            left.write_text("old")
        parser = Forked(_keeps_only_current, root)
        try:
            ended = forked(rdfa(*command(stage)), root, 150)
        finally:
            parser.end()
        found = {name: digest for name, digest in results(root).items() if "stale" not in name}
        if ended.status != 0 or found != right(stage):
            yield Outcome(WRONG, f"rdfa {stage} beside dry runs: {ended.status}, {ended.output[-1500:]}, {list(found)}")
        else:
            yield Outcome(SURVIVED)
        shutil.rmtree(root)


def _keeps_only_current() -> None:
    """As the Snakefile does when it is read."""
    from rdfa.reporting.figure_index import figures_folder, figures_key, keep_only_current_figures
    from rdfa.reporting.grids import keep_only_current, read_table, table_key

    table, entries = read_table("table1")
    while True:
        keep_only_current(Path("results/table1.csv"), table_key(entries))
        keep_only_current_figures(figures_folder("table1"), figures_key(table, entries))
        time.sleep(0.002)


def two_trainings(scene: Scene) -> Iterator[Outcome]:
    """The same training two or three times at once: one trains, the others say who does, or find it done."""
    for number in range(scene.count(1, 12)):
        root, many = checkout(scene.folder / "checkout", "train"), 2 + number % 2
        tracked = number % 4 == 3
        ended = together([rdfa(*command("train", tracked))] * many, root, timeout=200)
        what = f"{many} x rdfa train at once"
        for each in ended:
            refused = each.status == 2 and "another process is training" in each.output and ".lock" in each.output
            if each.traced or not (each.status == 0 or refused):
                yield Outcome(WRONG, f"{what}: {each.status}, {each.output[-1500:]}")
                break
        else:
            at_all = any(each.status == 0 for each in ended)
            yield mended(root, "train", what) if at_all else Outcome(LOST, f"{what}: none trained")
        shutil.rmtree(root)


def fetches(scene: Scene) -> Iterator[Outcome]:
    """The same data set fetched four times at once: each ends well, and nothing is left beside it."""
    for _ in range(scene.count(1, 12)):
        root = checkout(scene.folder / "checkout", "fetch")
        ended = together([rdfa(*command("fetch"))] * 4, root, timeout=200)
        bad = [each.output[-1500:] for each in ended if each.status != 0 or each.traced]
        left = [path.name for path in (root / "data").glob(".*")]
        if bad or left or results(root) != right("fetch"):
            yield Outcome(WRONG, f"4 x rdfa fetch at once: {bad}, left {left}")
        else:
            yield Outcome(SURVIVED)
        shutil.rmtree(root)


_LIMIT, _OF_WORKFLOWS = 300.0, 900.0
KINDS = (
    Kind("two `snakemake` on one checkout", two_workflows, _OF_WORKFLOWS),
    Kind("`dvc repro` beside `snakemake`", dvc_beside_snakemake, _OF_WORKFLOWS),
    *(
        Kind(name, inject, _LIMIT)
        for name, inject in (
            ("dry runs while results are written", dry_runs),
            ("twenty runs to one SQLite store", sqlite),
            ("twenty runs to one PostgreSQL store", postgresql),
            ("readers of files that are rewritten", readers),
            ("readers of data that is fetched anew", replaced_under_readers),
            ("the same training at once", two_trainings),
            ("the same fetch at once", fetches),
        )
    ),
)
