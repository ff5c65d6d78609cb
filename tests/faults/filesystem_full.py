"""Disks that are full, and files that may not grow."""

import os
import resource
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.faults.campaign import LOST, SURVIVED, WRONG, Outcome, Scene
from tests.faults.forked import forked, rdfa
from tests.faults.mounts import resize, small_disk
from tests.faults.small import checkout, command, following, made, results, right
from tests.faults.verdicts import bad_refusal, mended

_PAGE = 4096
_ROOMY = 2**26
_FAULTS = {
    "fetch": (1, 25),
    "train": (2, 25),
    "detect": (1, 12),
    "evaluate": (0, 6),
    "table": (1, 6),
    "figures": (0, 8),
}
"""Per stage: how many in the short form and in the full one."""


def disk_full(scene: Scene) -> Iterator[Outcome]:
    """Each stage on a disk that has room for a part of what it writes: so each write is the one that fails."""
    disk = scene.folder / "disk"
    for stage, (short, full) in _FAULTS.items():
        need = _need(stage)
        wanted, least = scene.count(short, full), 0
        for number in range(wanted):
            # One at random of each of equal parts of the need; those that turn out to suffice are drawn again.
            low, high = (need * part // wanted for part in (number, number + 1))
            outcome = None
            while outcome is None:
                free = scene.random.randint(least if high <= least else low, max(high, least))
                with small_disk(disk, _ROOMY):
                    outcome = _on_full_disk(checkout(disk, stage), stage, free)
                if outcome is None:
                    need, low, high = min(need, free), 0, max(0, free - 1)
            yield outcome


def _on_full_disk(folder: Path, stage: str, free: int) -> Outcome | None:
    """One stage with so many free pages; nothing if they suffice."""
    before = results(folder)
    place = os.statvfs(folder)
    resize(folder, (place.f_blocks - place.f_bfree + free) * _PAGE or _PAGE)
    ended = forked(rdfa(*command(stage)), folder)
    if ended.status == 0 and results(folder) == right(stage):
        return None
    what = f"rdfa {stage} with {free} free pages"
    wrong = bad_refusal(folder, stage, ended, before, what)
    resize(folder, _ROOMY)
    return wrong or mended(folder, stage, what)


@cache
def _need(stage: str) -> int:
    """Pages that a stage fills at most: what it leaves, and for a training its progress, three times the weights."""
    before, after = (_pages(made(each)) for each in (stage, following(stage)))
    return (after - before) * (4 if stage == "train" else 1)


def _pages(folder: Path) -> int:
    return sum(-(-path.stat().st_size // _PAGE) for path in folder.rglob("*") if path.is_file())


def no_growth(scene: Scene) -> Iterator[Outcome]:
    """Files that may not grow beyond a size (RLIMIT_FSIZE), which is a full disk for those who are not root."""
    for stage, largest in (("fetch", 120_000), ("train", 110_000), ("detect", 80_000), ("figures", 90_000)):
        for _ in range(scene.count(int(stage in ("fetch", "train")), 10)):
            limit = scene.random.randint(8_000, largest)
            folder = checkout(scene.folder / "limited", stage)
            before = results(folder)

            def limited(limit: int = limit) -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

            ended = forked(rdfa(*command(stage)), folder, before=limited)
            what = f"rdfa {stage} with files of at most {limit} bytes"
            yield bad_refusal(folder, stage, ended, before, what) or mended(folder, stage, what)
            shutil.rmtree(folder)


def disk_full_logging(scene: Scene) -> Iterator[Outcome]:
    """A training that logs to MLflow on a disk that becomes full: results or a message, and the store works again."""
    disk = scene.folder / "disk"
    for number in range(scene.count(1, 12)):
        free = scene.random.randrange(*((0, 250), (250, 550))[number % 2])  # while the store is made, and later
        what = f"rdfa train, logged, with {free} free pages"
        with small_disk(disk, _ROOMY):
            folder = checkout(disk, "train")
            before = results(folder)
            place = os.statvfs(folder)
            resize(folder, (place.f_blocks - place.f_bfree + free) * _PAGE)
            ended = forked(rdfa(*command("train", tracked=True)), folder)
            resize(folder, _ROOMY)
            wrong = None
            if ended.status != 0:
                wrong = bad_refusal(folder, "train", ended, before, what)
            elif ended.traced:
                wrong = Outcome(WRONG, f"{what}: a traceback: {ended.output[-1500:]}")
            yield wrong or _logged_again(folder, what)


def _logged_again(folder: Path, what: str) -> Outcome:
    """Whether training and evaluation, called again, log to a store that has one whole run of them."""
    for stage in ("train", "detect", "evaluate"):
        outcome = mended(folder, stage, what, tracked=stage != "detect")
        if outcome.verdict != SURVIVED:
            return outcome
    ended = forked(_print_runs, folder)
    if ended.status != 0 or "1 FINISHED with mAP" not in ended.output:
        return Outcome(LOST, f"{what}; MLflow has: {ended.output[-1500:]}")
    return Outcome(SURVIVED)


def _print_runs() -> None:
    from rdfa.tracking import Store

    store = Store(Path())
    runs = store.client.search_runs([store.experiment])
    whole = [run for run in runs if "mAP_average" in run.data.metrics and "parameters" in run.data.metrics]
    print(f"{len(runs)} {' '.join(run.info.status for run in runs)}{' with mAP' if len(whole) == len(runs) else ''}")
