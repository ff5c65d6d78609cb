"""Folders that cannot be written, that are slow, or that vanish while they are used."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.conftest import ROOT
from tests.faults.campaign import SURVIVED, WRONG, NotHere, Outcome, Scene
from tests.faults.forked import Ended, Forked, forked, rdfa
from tests.faults.mounts import own_mounts, read_only, small_disk, unmount
from tests.faults.small import STAGES, checkout, command, results, right
from tests.faults.verdicts import bad_message, bad_refusal, mended

_WRITES = {
    "fetch": ("data",),
    "train": ("checkpoints", "results"),
    "detect": ("results",),
    "evaluate": ("results",),
    "table": ("results",),
    "figures": ("results",),
}
_ROOMY = 2**26
NOBODY = 65534


def read_only_folders(scene: Scene) -> Iterator[Outcome]:
    """Folders without permission to write, for one who is not root, and read-only mounts, for root as well."""
    ways: list[Callable[[Path], AbstractContextManager[object]]] = [_without_permission]
    if _may_mount():
        ways.append(read_only)
    cases = [(stage, folder, way) for stage, folders in _WRITES.items() for folder in folders for way in ways]
    for stage, name, way in scene.random.sample(cases, scene.count(3, len(cases))):
        root = checkout(scene.folder / "checkout", stage)
        _hand_over(root)
        (root / name).mkdir(exist_ok=True)
        os.chown(root / name, NOBODY, NOBODY) if os.geteuid() == 0 else None
        before, what = results(root), f"rdfa {stage}, {name} is read-only ({way.__name__})"
        with way(root / name):
            ended = forked(rdfa(*command(stage)), root, before=_as_nobody)
        outcome = bad_refusal(root, stage, ended, before, what)
        yield outcome or _mended_as_nobody(root, stage, what)
        shutil.rmtree(root)
    yield from _read_only_data(scene)


def _read_only_data(scene: Scene) -> Iterator[Outcome]:
    """Data that is only read needs no permission to write: every stage runs, a fetch of what is there too."""
    root = checkout(scene.folder / "checkout", "train")
    _hand_over(root)
    with _without_permission(root / "data"):
        for stage in ("fetch", "train", "detect", "evaluate")[: scene.count(2, 4)]:
            ended = forked(rdfa(*command(stage)), root, before=_as_nobody)
            if ended.status != 0:
                yield Outcome(WRONG, f"rdfa {stage}, its data is read-only: {ended.output[-1500:]}")
                break
            yield Outcome(SURVIVED)
    shutil.rmtree(root)


def _mended_as_nobody(root: Path, stage: str, what: str) -> Outcome:
    again = forked(rdfa(*command(stage)), root, before=_as_nobody)
    if again.status != 0 or results(root) != right(stage):
        return Outcome(WRONG, f"{what}; the next call: {again.status}, {again.output[-1500:]}")
    return Outcome(SURVIVED)


@contextmanager
def _without_permission(folder: Path) -> Iterator[None]:
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o755)


def _hand_over(root: Path) -> None:
    """Let nobody own a checkout: root may write everywhere."""
    if os.geteuid() != 0:
        return
    open_to_others(root.parent)
    for path in [root, *root.rglob("*")]:
        os.chown(path, NOBODY, NOBODY)


def open_to_others(folder: Path) -> None:
    """Let other users into a folder of the campaign; they need the code as well."""
    folder.chmod(0o755)
    for path in (folder, ROOT, Path(sys.prefix)):
        closed = [str(each) for each in (path, *path.parents) if not each.stat().st_mode & 0o001]
        if closed:
            raise NotHere(f"other users cannot enter {closed[0]}")


def _as_nobody() -> None:
    os.umask(0o022)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.environ.update(HOME="/nonexistent", MPLCONFIGDIR="/tmp")


def _may_mount() -> bool:
    try:
        own_mounts()
    except NotHere:
        return False
    return True


def slow(scene: Scene) -> Iterator[Outcome]:
    """Every file that Python opens, renames, lists or removes in the checkout takes up to 20 ms longer.

    What HDF5 and SQLite do by themselves is not slowed down: that takes a file system of one's own (FUSE).
    """
    root = checkout(scene.folder / "checkout", "fetch")
    for stage in list(STAGES)[: scene.count(2, len(STAGES))]:
        pauses = [scene.random.random() * 0.02 for _ in range(64)]

        def slowed(pauses: list[float] = pauses) -> None:
            slow_events = ("open", "os.rename", "os.listdir", "os.scandir", "os.remove", "os.mkdir")
            count = 0

            def pause(event: str, arguments: tuple[object, ...]) -> None:
                nonlocal count
                if event in slow_events and arguments and not str(arguments[0]).startswith(sys.prefix):
                    count += 1
                    time.sleep(pauses[count % len(pauses)])

            sys.addaudithook(pause)

        ended = forked(rdfa(*command(stage)), root, before=slowed)
        if ended.status == 0 and results(root) == right(stage):
            yield Outcome(SURVIVED)
        else:
            yield Outcome(WRONG, f"rdfa {stage} on a slow disk: {ended.status}, {ended.output[-1500:]}")


def vanishing(scene: Scene) -> Iterator[Outcome]:
    """A mounted or linked folder that goes away while a stage runs: the right result or a message; then it is back."""
    for number in range(scene.count(3, 30)):
        stage = scene.random.choice(["fetch", "train", "detect", "evaluate", "figures"])
        name = scene.random.choice(["data", "results"]) if stage != "fetch" else "data"
        way = ("link", "renamed", "mount")[number % 3]
        if way == "mount" and not _may_mount():
            continue
        root = checkout(scene.folder / "checkout", stage)
        before = results(root)
        after = scene.random.random() * 0.6
        what = f"rdfa {stage}, {name} vanishes ({way}) after {after:.3f} s"
        ended, back = _vanish(root, scene.folder / "disk", name, way, stage, after)
        problem = ("a traceback" if ended.traced else "") if ended.status == 0 else bad_message(ended)
        if problem:
            yield Outcome(WRONG, f"{what}: {problem}: {ended.output[-1500:]}")
        else:
            back()
            yield _back(root, stage, before, what)
        _clear(scene.folder)


def _vanish(
    root: Path, disk: Path, name: str, way: str, stage: str, after: float
) -> tuple[Ended, Callable[[], object]]:
    """Run a stage and take a folder away after a while; how it ended, and what brings the folder back."""
    place = root / name
    place.mkdir(exist_ok=True)
    disk.mkdir()
    if way == "mount":
        place.rename(disk / name)
        place.mkdir()
        with small_disk(place, _ROOMY):
            shutil.copytree(disk / name, place, dirs_exist_ok=True)
            child = Forked(rdfa(*command(stage)), root)
            time.sleep(after)
            unmount(place)
            ended = child.wait(150)
        # What was written there is lost with this kind of memory; its former state is what comes back.
        return ended, lambda: (shutil.rmtree(place), (disk / name).rename(place))
    if way == "link":
        place.rename(disk / name)
        place.symlink_to(disk / name)
        moved, away = disk / name, disk / "away"
    else:
        moved, away = place, disk / "away"
    child = Forked(rdfa(*command(stage)), root)
    time.sleep(after)
    moved.rename(away)
    ended = child.wait(150)

    def back() -> None:
        if moved.is_dir():  # what was written where the folder had been
            shutil.rmtree(moved)
        away.rename(moved)

    return ended, back


def _back(root: Path, stage: str, before: dict[str, str], what: str) -> Outcome:
    found, whole = results(root), right(stage)
    half = [name for name, digest in found.items() if digest not in (whole.get(name), before.get(name))]
    if half:
        return Outcome(WRONG, f"{what}: half-written {half}")
    return mended(root, stage, what)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
