"""Whole runs: secrets that nothing may repeat, and names that reach Snakemake's shell."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from rdfa.data.annotations import read_annotations
from tests.data.own_files import recordings, write_features, write_labels
from tests.faults.campaign import SURVIVED, WRONG, NotHere, Outcome, Scene
from tests.faults.forked import Ended, forked, rdfa
from tests.faults.hostile_calls import inside
from tests.faults.small import checkout, run
from tests.faults.small import command as command_of
from tests.workflow.conftest import Clone, clone_project, small_table
from tests.workflow.test_your_data import SMALLER

VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "HF_TOKEN",
    "DVC_STUDIO_TOKEN",
    "GIT_ASKPASS_SECRET",
    "DATABASE_URL",
)
RUN = "thumos14-rdfa-paper-sample-s0"
SHELL = ("x;touch M", "$(touch M)", "`touch M`", "a'b")
"""Names of which a shell would make something else."""


def secrets(scene: Scene) -> Iterator[Outcome]:
    """Every stage of a small table, a training that crashes and a wrong command; then all that was said and written."""
    known = {name: f"s3cr3t{scene.random.getrandbits(64):016x}" for name in VARIABLES}
    root = checkout(scene.folder / "checkout", "fetch")
    with inside(root, **known, MLFLOW_TRACKING_URI=f"sqlite:///{root}/mlflow.db"):
        ended = list(_everything(root))
    for what, status, each in ended:
        if each.status != status:
            yield Outcome(WRONG, f"{what}: {each.status}: {each.output[-1500:]}")
            return
    written = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] != "params"]
    contents = [path.read_bytes() for path in written]
    kinds = {path.suffix for path in written}
    if not {".db", ".safetensors", ".json", ".txt", ".csv", ".tex", ".svg", ".html"} <= kinds:
        yield Outcome(WRONG, f"the run wrote only {kinds}")
    for name, value in known.items():
        places = [str(path) for path, content in zip(written, contents, strict=True) if value.encode() in content]
        places += [f"what {what} said" for what, _, each in ended if value in each.output]
        yield Outcome(WRONG, f"{name} is in {places}") if places else Outcome(SURVIVED)


def _everything(root: Path) -> Iterator[tuple[str, int, Ended]]:
    """Calls, the status that each must have, and how it ended."""
    yield "fetch", 0, run("fetch", root)
    yield "a training that crashes", 1, forked(rdfa(*command_of("train", tracked=True)), root, before=_crashing)
    for stage in ("train", "detect", "evaluate", "table", "figures"):
        yield stage, 0, run(stage, root, tracked=True)
    (root / "mlflow.db").rename(root / "former.db")
    for name in ("import-runs", "site", "doctor"):
        yield name, 0, forked(rdfa(name), root, timeout=150)
    yield "a wrong command", 2, forked(rdfa("train", RUN, "--no-such-option"), root)


def _crashing() -> None:
    """Let a training end with a defect, after its MLflow run was begun."""
    import rdfa.stages.train

    def crash(*arguments: object, **named: object) -> None:
        raise RuntimeError(f"a defect, with {arguments} and {named}")

    rdfa.stages.train.train = crash  # type: ignore[assignment]


def injected(scene: Scene) -> Iterator[Outcome]:
    if not scene.full:
        raise NotHere("only in the full form: it starts Snakemake")
    clone = clone_project(scene.folder / "a clone")
    tables = clone.root / "params" / "tables"
    for path in tables.glob("*.yaml"):
        path.unlink()
    for name in ("x;touch M", "$(touch M)", "a b", "`touch M`", "x|touch M", "-x", "a'b"):
        path = tables / f"{name}.yaml"
        path.write_text(small_table())
        done = clone.run("snakemake", "--cores", "1", f"results/{name}.csv", check=False)
        yield _not_run(clone.root, f"the table {name!r}", done.returncode, done.stdout + done.stderr, str(tables.name))
        path.unlink()
    (tables / "table1.yaml").write_text(small_table())
    for scale in ("sample;touch M", "$(touch M)", "-x"):
        done = clone.run("snakemake", "--cores", "1", "results/table1.csv", "--config", f"scale={scale}", check=False)
        yield _not_run(clone.root, f"the scale {scale!r}", done.returncode, done.stdout + done.stderr, "scale")
    for setting in ("features.encoder: x; touch M", "features.encoder: \"a' $(touch M) 'b\""):
        key, _, value = setting.partition(": ")
        text = small_table((("thumos14", "paper"),)).replace("features:\n", f"features:\n      {key[9:]}: {value}\n")
        (tables / "table1.yaml").write_text(text)
        done = clone.run("snakemake", "--cores", "2", "results/table1.csv", check=False)
        yield _not_run(clone.root, setting, 1 - done.returncode, done.stdout + done.stderr, "")
        shutil.rmtree(clone.root / "results", ignore_errors=True)
    for name in SHELL:
        path = clone.root / "params" / "datasets" / f"{name}.yaml"
        path.write_text((path.parent / "thumos14.yaml").read_text())
        (tables / "table1.yaml").write_text(small_table(((name, "paper"),)))
        done = clone.run("snakemake", "--cores", "1", "results/table1.csv", check=False)
        yield _not_run(clone.root, f"the data set {name!r}", done.returncode, done.stdout + done.stderr, "dataset")
        path.unlink()
    (tables / "table1.yaml").unlink()
    yield from _own_data(clone)


def _own_data(clone: Clone) -> Iterator[Outcome]:
    """Names in a user's own data: what a shell would obey leads to a table, control characters to a refusal."""
    for separator in ("\n", "\r", "\x1b]0;"):
        done = _described(clone, [f"x{separator}$(touch M)"], f"y{separator}$(touch M)")
        yield _not_run(clone.root, f"own names with {separator!r}", done.returncode, done.stdout + done.stderr, "error")
    done = _described(clone, [*SHELL, 'a"b', "-x"], "$(touch M);`touch M`'\"")
    if done.returncode:
        yield Outcome(WRONG, f"own names that a shell would obey: {done.stdout + done.stderr}")
        return
    for old, new in SMALLER:
        clone.edit("params/datasets/mine.yaml", old, new)
    done = clone.run("snakemake", "--cores", "2", "results/mine.csv", check=False)
    outcome = _not_run(clone.root, "own names", 1 - done.returncode, done.stdout + done.stderr, "")
    found = read_annotations(clone.root / "data" / "mine" / "annotations.json") if not done.returncode else None
    if found is not None and not {*SHELL, 'a"b', "-x"} <= {video.name for video in found.videos}:
        outcome = Outcome(WRONG, f"own names became {[video.name for video in found.videos]}")
    yield outcome


def _described(clone: Clone, names: list[str], label: str) -> subprocess.CompletedProcess[str]:
    """`rdfa new-dataset` on recordings of which the first have these names, with a class of this name."""
    shutil.rmtree(clone.root / "my", ignore_errors=True)
    (clone.root / "my").mkdir()
    made = recordings()
    for recording, name in zip(made, names, strict=False):
        recording.name = name
    for recording in made:
        recording.instances = [(start, end, label if old == "a" else old) for start, end, old in recording.instances]
    files = ("--annotations", "my/labels.csv", "--features", "my/features.h5")
    write_labels(clone.root / "my" / "labels.csv", made)
    write_features(clone.root / "my" / "features.h5", made, "h5")
    return clone.run("rdfa", "new-dataset", "mine", *files, "--layout", "TC", "--table", check=False)


def _not_run(root: Path, what: str, status: int, said: str, told: str) -> Outcome:
    ran = [path for path in root.rglob("M*") if path.name in ("M", "M.yaml", "M.csv")]
    if ran or status == 0 or "Traceback" in said or told not in said:
        return Outcome(WRONG, f"{what}: made {ran}, status {status}: {said[-600:]}")
    return Outcome(SURVIVED)
