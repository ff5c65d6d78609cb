"""Whole runs: secrets that nothing may repeat, and names that reach Snakemake's shell."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import TINY
from tests.faults.campaign import SURVIVED, WRONG, NotHere, Outcome, Scene
from tests.faults.hostile_calls import command, inside
from tests.workflow.conftest import clone_project, small_table

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


def secrets(scene: Scene) -> Iterator[Outcome]:
    known = {name: f"s3cr3t{scene.random.getrandbits(64):016x}" for name in VARIABLES}
    said = ""
    with inside(scene.folder, **known, MLFLOW_TRACKING_URI=f"sqlite:///{scene.folder}/mlflow.db"):
        settings = [f"--set={each}" for each in (*TINY, "training.epochs=1", "training.schedule_epochs=2")]
        for step in (("fetch",), ("train",), ("detect",), ("evaluate",), ("train", "--no-such-option")):
            status, text = command(*step, RUN, *settings)
            said += text
            if status and len(step) == 1:
                yield Outcome(WRONG, f"{step}: {text}")
                return
    written = [path for path in scene.folder.rglob("*") if path.is_file() and "params" not in path.parts]
    contents = [path.read_bytes() for path in written]
    kinds = {path.suffix for path in written}
    if not {".db", ".safetensors", ".json", ".txt", ".csv"} <= kinds:
        yield Outcome(WRONG, f"the run wrote only {kinds}")
    for name, value in known.items():
        places = [str(path) for path, content in zip(written, contents, strict=True) if value.encode() in content]
        places += ["the output"] if value in said else []
        yield Outcome(WRONG, f"{name} is in {places}") if places else Outcome(SURVIVED)


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


def _not_run(root: Path, what: str, status: int, said: str, told: str) -> Outcome:
    ran = [path for path in root.rglob("M*") if path.name in ("M", "M.yaml", "M.csv")]
    if ran or status == 0 or "Traceback" in said or told not in said:
        return Outcome(WRONG, f"{what}: made {ran}, status {status}: {said[-600:]}")
    return Outcome(SURVIVED)
