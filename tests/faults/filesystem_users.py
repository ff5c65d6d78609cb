"""Two users of one group, odd names of folders, and a checkout that is moved."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.campaign import LOST, SURVIVED, WRONG, NotHere, Outcome, Scene
from tests.faults.filesystem_places import open_to_others
from tests.faults.forked import forked, rdfa
from tests.faults.small import STAGES, checkout, command, differing
from tests.faults.verdicts import bad_message
from tests.workflow.conftest import ROWS, Clone, clone_project, small_table

_FIRST, _SECOND, _GROUP = 61001, 61002, 61010
_NAMES = ("mes données", "数据 集", "it's", '100% "done"', "a#b", "$(touch x);&", "-n", "Ünï\u0301 ö", "tab\there")
"""Of folders: spaces, letters beyond ASCII, quotes, and what means something to a URL or a shell."""


def two_users(scene: Scene) -> Iterator[Outcome]:
    """The first user makes some stages with one umask, the second goes on with 002, in one folder of their group.

    With 002 of the first, the second can do everything: go on, and make again what the first has made. With 022 and
    077, what the second may not do ends in a message.
    """
    if os.geteuid() != 0:
        raise NotHere("only root may be two users")
    stages = list(STAGES)
    for number in range(scene.count(2, 24)):
        mask = (0o002, 0o022, 0o077)[number % 3]
        stage = scene.random.choice(stages[1:])
        tracked = scene.full and number % 4 == 0
        root = checkout(scene.folder / "checkout", "fetch")
        _shared_folder(root)
        what = f"umask {mask:03o}, then another user's rdfa {stage}"
        outcome = _made_by_first(root, stages[: stages.index(stage)], mask, tracked)
        yield outcome or _second(root, stage, mask, tracked, what)
        shutil.rmtree(root)


def _shared_folder(root: Path) -> None:
    """As an administrator makes it: of the group, which everything below inherits."""
    open_to_others(root.parent)
    for path in [root, *root.rglob("*")]:
        os.chown(path, _FIRST, _GROUP)
        path.chmod(0o2775 if path.is_dir() else 0o664)


def _made_by_first(root: Path, stages: list[str], mask: int, tracked: bool) -> Outcome | None:
    for stage in stages:
        ended = forked(rdfa(*command(stage, tracked)), root, before=_user(_FIRST, mask))
        if ended.status != 0:
            return Outcome(WRONG, f"rdfa {stage} with umask {mask:03o}: {ended.output[-1500:]}")
    return None


def _second(root: Path, stage: str, mask: int, tracked: bool, what: str) -> Outcome:
    stages = list(STAGES)
    ended = forked(rdfa(*command(stage, tracked)), root, before=_user(_SECOND, 0o002))
    if ended.traced:
        return Outcome(WRONG, f"{what}: a traceback: {ended.output[-1500:]}")
    if mask == 0o002 and (ended.status != 0 or "not logged" in ended.output):
        return Outcome(WRONG, f"{what}: {ended.status}, {ended.output[-1500:]}")
    if ended.status != 0:
        problem = bad_message(ended)
        return Outcome(WRONG, f"{what}: {problem}: {ended.output[-1500:]}") if problem else Outcome(SURVIVED)
    if mask != 0o002:
        return Outcome(SURVIVED)
    # Again from the beginning: other data takes the first user's place, and then the first one's data the second's.
    for user, others in ((_SECOND, ("--set=source.sample.train_videos=9",)), (_FIRST, ())):
        ended = forked(rdfa(*command("fetch"), *others), root, before=_user(user, 0o002))
        if ended.status != 0 or ended.traced:
            return Outcome(LOST, f"{what}, then rdfa fetch {' '.join(others)}: {ended.output[-1500:]}")
    for again in stages[1:]:
        ended = forked(rdfa(*command(again, tracked)), root, before=_user(_SECOND, 0o002))
        if ended.status != 0 or ended.traced:
            return Outcome(LOST, f"{what}, then rdfa {again}: {ended.output[-1500:]}")
    others = differing(root, "figures")
    return Outcome(WRONG, f"{what}: other than one user's are {others}") if others else Outcome(SURVIVED)


def _user(number: int, mask: int) -> Callable[[], None]:
    def become() -> None:
        os.umask(mask)
        os.setgroups([_GROUP])
        os.setgid(number)
        os.setuid(number)
        os.environ.update(HOME="/nonexistent", MPLCONFIGDIR="/tmp")

    return become


def names(scene: Scene) -> Iterator[Outcome]:
    """Checkouts whose path has spaces, other letters, or signs with a meaning: all stages, logged to MLflow."""
    for name in [_NAMES[0], *scene.random.sample(_NAMES[1:], scene.count(0, len(_NAMES) - 1))]:
        root = checkout(scene.folder / name, "fetch")
        outcome = Outcome(SURVIVED)
        for stage in list(STAGES)[: scene.count(4, len(STAGES))]:
            tracked = scene.full and "'" not in name  # the short form logs in `moved`; MLflow takes no apostrophe
            ended = forked(rdfa(*command(stage, tracked)), root)
            if ended.status != 0 or ended.traced or "not logged" in ended.output:
                outcome = Outcome(WRONG, f"rdfa {stage} in a folder called {name!r}: {ended.output[-1500:]}")
                break
        others = differing(root, stage)
        if outcome.verdict == SURVIVED and others:
            outcome = Outcome(WRONG, f"in a folder called {name!r} differ {others}")
        strays = sorted(path.name for path in scene.folder.iterdir() if path.name != name)
        yield Outcome(WRONG, f"{name!r} made {strays} beside it") if strays else outcome
        shutil.rmtree(root)
    for name, why in (("what?", "the `?`"), ("it's", "an apostrophe")):
        root = checkout(scene.folder / name, "train")
        ended = forked(rdfa(*command("train", tracked=True)), root)
        refused = ended.status == 2 and f"{why}; rename the folder" in ended.output and not ended.traced
        yield Outcome(SURVIVED) if refused else Outcome(WRONG, f"logged in a folder {name!r}: {ended.output[-1500:]}")
        shutil.rmtree(root)
    if scene.full:
        for name in _NAMES[:2]:
            yield _workflow(scene.folder / name)


def _workflow(folder: Path) -> Outcome:
    """The small table by a real `snakemake` in an oddly named clone, which is then moved."""
    clone = cloned(folder)
    clone.snakemake()
    if clone.jobs() != {}:
        return Outcome(WRONG, f"in {folder.name!r} a second snakemake would run {clone.jobs()}")
    moved = Clone(folder.rename(folder.with_name(f"{folder.name} moved")))
    if moved.jobs() != {}:
        return Outcome(WRONG, f"moved from {folder.name!r}, snakemake would run {moved.jobs()}")
    return Outcome(SURVIVED)


def cloned(folder: Path) -> Clone:
    """A clone with the small table, committed."""
    folder.mkdir()
    clone = clone_project(folder)
    (folder / "params" / "tables" / "table1.yaml").write_text(small_table(ROWS[:1]))
    clone.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qam", "small table")
    return clone


def moved(scene: Scene) -> Iterator[Outcome]:
    """A checkout that was moved after all stages: each finds what is there, and MLflow its files and models."""
    for number in range(scene.count(1, 3)):
        root = checkout(scene.folder / "here", "fetch")
        for stage in STAGES:
            ended = forked(rdfa(*command(stage, tracked=True)), root)
            assert ended.status == 0, ended.output
        root = root.rename(scene.folder / f"ailleurs, à côté {number}")
        times = {path: path.stat().st_mtime_ns for path in (root / "results" / "runs").rglob("*")}
        outcome = Outcome(SURVIVED)
        for stage in ("fetch", "train", "table"):
            ended = forked(rdfa(*command(stage, tracked=True)), root)
            if ended.status != 0 or ended.traced or "not logged" in ended.output:
                outcome = Outcome(LOST, f"moved, rdfa {stage}: {ended.output[-1500:]}")
        found = forked(_everything_is_found, root)
        if found.status != 0:
            outcome = Outcome(LOST, f"moved: MLflow: {found.output[-1500:]}")
        elif times != {path: path.stat().st_mtime_ns for path in (root / "results" / "runs").rglob("*")}:
            outcome = Outcome(WRONG, "moved: a run was made again")
        elif differing(root, "figures"):
            outcome = Outcome(WRONG, f"moved: differ {differing(root, 'figures')}")
        yield outcome
        shutil.rmtree(root)


def _everything_is_found() -> None:
    """Every artifact of every run, and the registered model, which detects."""
    import mlflow
    import numpy as np

    from rdfa.tracking import Store

    store = Store(Path())
    files = 0
    for experiment in store.client.search_experiments():
        for run in store.client.search_runs([experiment.experiment_id]):
            for artifact in store.client.list_artifacts(run.info.run_id):
                local = Path(store.client.download_artifacts(run.info.run_id, artifact.path))
                assert local.exists(), local
                files += 1
    assert files >= 8, f"only {files} artifacts"
    model = mlflow.pyfunc.load_model("models:/rdfa-table1@best")
    assert len(model.predict(np.random.default_rng(0).standard_normal((100, 24), np.float32), params={"fps": 30.0})) > 0
