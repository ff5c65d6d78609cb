"""A clone of the project with a small table 1, made once by a real `snakemake` call."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from rdfa.params import leaves, parse_override
from tests.conftest import ROOT, TINY

ROWS = (("thumos14", "paper"), ("thumos14", "released"), ("activitynet", "paper"))


@dataclass(frozen=True)
class Clone:
    """A checkout to run commands in."""

    root: Path

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a user of this checkout would; its output is in the error message if it fails."""
        variables = self.environment() | environment
        done = subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True, check=False)
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} exited {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own, to be killed with all that it starts."""
        quiet = subprocess.DEVNULL
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment(), stdout=quiet, stderr=quiet, start_new_session=True
        )

    def environment(self) -> dict[str, str]:
        """This process's environment, with the clone's code and without somebody's MLflow server."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return kept | {"PATH": path, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}

    def snakemake(self, *arguments: str, check: bool = True, **environment: str) -> str:
        """Output of a `snakemake` call for table 1."""
        command = ("snakemake", "--cores", "2", *arguments, "results/table1.csv")
        done = self.run(*command, check=check, **environment)
        return done.stdout + done.stderr

    def jobs(self) -> dict[str, int]:
        """How often `snakemake` would run each rule now."""
        counted = re.findall(r"^(fetch|train|detect|evaluate|table) +(\d+)$", self.snakemake("-n"), re.MULTILINE)
        return {rule: int(count) for rule, count in counted}

    def edit(self, path: str, old: str, new: str) -> Callable[[], None]:
        """Replace text in a file, once; returns what undoes it."""
        file = self.root / path
        text = file.read_text(encoding="utf-8")
        assert text.count(old) >= 1, f"{path} does not contain {old!r}"
        file.write_text(text.replace(old, new, 1), encoding="utf-8")
        return lambda: (file.write_text(text, encoding="utf-8"), None)[1]


def clone_project(root: Path) -> Clone:
    """A copy of all files that git knows or would take, committed, with the compiled kernel of this installation."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    for library in (ROOT / "rdfa").rglob("*.so"):
        shutil.copy2(library, root / library.relative_to(ROOT))
    for command in (
        ["git", "init", "--quiet"],
        ["git", "add", "--all"],
        ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "-m", "clone"],
    ):
        subprocess.run(command, cwd=root, check=True)
    return Clone(root)


def git_clone(origin: Path, root: Path) -> Clone:
    """What `git clone` and an installation make: no data, no results, but the compiled kernel."""
    subprocess.run(["git", "clone", "--quiet", origin, root], check=True)
    for library in (ROOT / "rdfa").rglob("*.so"):
        shutil.copy2(library, root / library.relative_to(ROOT))
    return Clone(root)


def small_table(wanted: tuple[tuple[str, str], ...] = ROWS) -> str:
    """Table 1 with rows that train in seconds."""
    rows = []
    for dataset, variant in wanted:
        params: dict[str, object] = {}
        for setting in (*TINY, *(("model.stem.channel_width=16",) if variant == "released" else ())):
            merge(params, parse_override(setting))
        rows.append({"dataset": dataset, "model": "rdfa", "variant": variant, "params": params})
    return yaml.safe_dump({"title": "Main results", "scale": "sample", "seeds": [0], "rows": rows})


def merge(into: dict[str, object], values: dict[str, object]) -> None:
    for key, value in leaves(values):
        *path, last = key.split(".")
        section = into
        for part in path:
            section = section.setdefault(part, {})  # type: ignore[assignment]
        section[last] = value


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which table 1 was made; tests leave it as they found it."""
    made = clone_project(tmp_path_factory.mktemp("a clone"))
    (made.root / "params" / "tables" / "table1.yaml").write_text(small_table())
    made.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qam", "small table")
    made.snakemake()
    return made
