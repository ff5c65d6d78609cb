"""The stages of one small run, each with its folder before and after it, and how two folders are compared.

MLflow's store holds absolute paths; so every stage, also the uninterrupted one, works in the same place, into which the
folder from before is copied.
"""

import atexit
import hashlib
import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from rdfa.data.sources.archive import content_digest
from rdfa.errors import RdfaError
from rdfa.files import read_json
from tests.conftest import ROOT, TINY
from tests.data.own_files import GRID, recordings, write_features, write_labels
from tests.data.test_hapt import made_up, tar_of
from tests.faults.crashes_fork import Met, call
from tests.workflow.conftest import small_table

SMALL = {"source.sample.train_videos": 4, "source.sample.test_videos": 3, "training.epochs": 2}
"""What makes runs smaller than those of the tests."""
UNSTEADY = {"seconds", "cpu_seconds", "peak_memory_mib", "made_by"}
"""Entries of run.json that no two trainings share, and metrics in MLflow."""
COSTS = {"training_seconds", "peak_memory_mib"}

Commands = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Stage:
    """A command, and where it starts and ends."""

    name: str
    commands: Commands
    root: Path
    whole: Met
    """The uninterrupted call."""
    smallest: int
    """Pages in memory of a process that does next to nothing."""

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def before(self) -> Path:
        return self.root / f"before-{self.name}"

    @property
    def after(self) -> Path:
        return self.root / f"after-{self.name}"

    def count(self, among: str) -> int:
        """How many of its events a regular expression finds."""
        return sum(bool(re.search(among, event)) for event in self.whole.events)

    def begin(self) -> None:
        """Put the folder as it was before the stage in its place."""
        copy(self.before, self.work)


@cache
def stage(name: str) -> Stage:
    """A stage, after it and those before it have run without interruption."""
    made = _begun()
    before, commands = made.chain[name]
    source = made.root / f"after-{stage(before).name}" if before else made.root / "begun"
    copy(source, made.root / "work")
    if name == "own":
        _describe_own(made.root)
    if name == "imported":
        for left in (made.root / "work").glob("mlflow.db*"):
            left.unlink()
        shutil.rmtree(made.root / "work" / "mlartifacts")
    copy(made.root / "work", made.root / f"before-{name}")
    whole = call(made.root / "work", commands)
    assert whole.status == 0, f"{commands}: {whole.status}\n{whole.output}"
    copy(made.root / "work", made.root / f"after-{name}")
    smallest = call(made.root / "work", [("params", "thumos14-rdfa-paper-sample-s0")]).pages
    return Stage(name, commands, made.root, whole, smallest)


@dataclass(frozen=True)
class _Begun:
    root: Path
    chain: dict[str, tuple[str, Commands]]
    """Stage -> the one before it, if any, and its commands."""


@cache
def _begun() -> _Begun:
    """A folder with parameters alone."""
    root = Path(tempfile.mkdtemp(prefix="faults-crashes-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    shutil.copytree(ROOT / "params", root / "params")
    (root / "begun").mkdir()
    (root / "begun" / "params").symlink_to(root / "params")
    table = yaml.safe_load(small_table((("thumos14", "paper"),)))
    shrink(table["rows"][0]["params"])
    (root / "params" / "tables" / "table1.yaml").write_text(yaml.safe_dump(table))
    options = tuple(f"--set={setting}" for setting in (*TINY, *(f"{name}={value}" for name, value in SMALL.items())))
    run = ("thumos14-rdfa-paper-sample-s0", *options)
    digest = f"--set=source.archive.sha256=['{_hapt(root)}']"
    return _Begun(
        root,
        {
            "fetch": ("", (("fetch", "activitynet-rdfa-paper-sample-s0", *options),)),
            "hapt": ("", (("fetch", "hapt", "--archive", str(root / "hapt.tar"), digest),)),
            "own": ("", (("fetch", "mine"),)),
            "ready": ("", (("fetch", *run), ("import-runs",))),
            "train": ("ready", (("train", *run),)),
            "detect": ("train", (("detect", *run),)),
            "evaluate": ("detect", (("evaluate", *run),)),
            "table": ("evaluate", (("table", "table1"),)),
            "figures": ("table", (("figures", "table1"),)),
            "imported": ("figures", (("import-runs",),)),
        },
    )


def shrink(params: dict[str, Any]) -> None:
    """Make the parameters of a table's row smaller than those of the tests."""
    for name, value in SMALL.items():
        *path, last = name.split(".")
        section = params
        for part in path:
            section = section[part]
        section[last] = value


def copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)


def _hapt(root: Path) -> str:
    files = made_up((4000, 3000))
    tar_of(root / "hapt.tar", files, mode="w")
    return content_digest(files)


def _describe_own(root: Path) -> None:
    made = recordings()
    labels, features = write_labels(root / "labels.csv", made), write_features(root / "features", made, "npy")
    described = call(
        root / "work",
        [("new-dataset", "mine", "--annotations", str(labels), "--features", str(features), *GRID)],
    )
    assert described.status == 0, described.output


def contents(folder: Path) -> dict[str, str]:
    """Every file of data, results and checkpoints with a digest of what must be the same in two calls."""
    found = {}
    for top in ("data", "results", "checkpoints"):
        for path in sorted((folder / top).rglob("*")):
            if path.is_file() or path.is_symlink():
                found[str(path.relative_to(folder))] = _digest(path)
    return found


def _digest(path: Path) -> str:
    if path.name == "log.txt" or path.suffix == ".log":
        return "a log"
    content = path.read_bytes()
    if path.name == "run.json":
        try:
            record = read_json(path)
            content = json.dumps({key: value for key, value in record.items() if key not in UNSTEADY}).encode()
        except RdfaError:
            return f"no JSON or not what was sealed, {len(content)} bytes"
    return hashlib.sha256(content).hexdigest()[:16]


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """What is missing, surplus or other, by name."""
    names = sorted(found.keys() | expected.keys())
    return [
        f"{name}: {'missing' if name not in found else 'surplus' if name not in expected else 'differs'}"
        for name in names
        if found.get(name) != expected.get(name)
    ]


def tracked(folder: Path) -> list[Any]:
    """What a person finds in MLflow's store: runs with status, numbers and files; registered versions and models."""
    path = folder / "mlflow.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as store:
        if not store.execute("SELECT name FROM sqlite_master WHERE name = 'runs'").fetchall():
            return []
        runs = _rows(
            store,
            "SELECT e.name, r.name, r.status, r.run_uuid, r.artifact_uri FROM runs r JOIN experiments e "
            "ON r.experiment_id = e.experiment_id WHERE r.lifecycle_stage = 'active'",
        )
        found: list[Any] = []
        for experiment, name, status, run, uri in runs:
            metrics = _rows(store, "SELECT DISTINCT key, step, value FROM metrics WHERE run_uuid = ?", run)
            # history.csv, from which a run is completed, has ten digits.
            numbers = sorted({(key, step, f"{value:.8g}") for key, step, value in metrics if key not in COSTS})
            params = _rows(store, "SELECT key, value FROM params WHERE run_uuid = ?", run)
            inputs = _rows(store, "SELECT DISTINCT source_type FROM inputs WHERE destination_id = ?", run)
            place = folder / "mlartifacts" / uri.partition("/mlartifacts/")[2]
            files = sorted(str(file.relative_to(place)) for file in place.rglob("*") if file.is_file())
            found.append((experiment, name, status, numbers, sorted(params), inputs, files))
        versions = _rows(
            store,
            "SELECT v.name, v.version, m.status, v.source FROM model_versions v JOIN logged_models m "
            "ON v.source = 'models:/' || m.model_id",
        )
        aliases = _rows(store, "SELECT name, alias, version FROM registered_model_aliases")
        return [sorted(found), sorted(row[:3] for row in versions), sorted(aliases)]


def running(folder: Path) -> list[str]:
    """Names of the runs that MLflow's store calls running."""
    found = tracked(folder)
    return [run[1] for run in found[0] if run[2] == "RUNNING"] if found else []


def _rows(store: sqlite3.Connection, question: str, *values: Any) -> Sequence[Any]:
    return store.execute(question, values).fetchall()
