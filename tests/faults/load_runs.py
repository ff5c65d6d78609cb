"""The stages that grow with the number of runs and of a table's rows, not with that of videos."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from rdfa.identity import HISTORY
from rdfa.params import compose, flatten, parse_override
from rdfa.reporting.grids import read_table
from rdfa.tracking import Store
from tests.conftest import ROOT, TINY
from tests.faults.load_growth import Stage
from tests.faults.load_stages import command
from tests.reporting.runs import finish
from tests.workflow.conftest import clone_project, merge

EPOCHS, TABLE = 25, "load"


def log_runs(folder: Path, runs: int) -> None:
    """What trainings and evaluations log: parameters, data set, a row per epoch, results, a file; found by key."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    store = Store(folder)
    params = flatten(compose(dataset="hacs", model="rdfa", variant="paper", scale="sample", folder=ROOT / "params").run)
    file = folder / "metrics.json"
    file.write_text("{}\n")
    for number in range(runs):
        run_id = store.start(f"run {number}", f"{number:08x}", params, {"variant": "paper"})
        store.log_dataset(run_id, folder, "hacs", f"{number:032x}", "training")
        for epoch in range(1, EPOCHS + 1):
            losses = {"epoch": epoch, "step": epoch, "loss": 1 / epoch, "classification": 1.0, "learning_rate": 1e-4}
            store.log_epoch(run_id, losses)
        store.end(run_id, "FINISHED")
        assert store.find(f"{number:08x}") == run_id
        store.log_results(run_id, {"mAP_average": 0.5}, [file])


def clone(folder: Path, rows: int) -> None:
    """A checkout whose only table has `rows` rows."""
    clone_project(folder)
    for table in (folder / "params/tables").glob("*.yaml"):
        table.unlink()
    written = []
    for number in range(rows):
        params: dict[str, object] = {}
        for setting in (*TINY, f"training.learning_rate={1e-4 * (1 + number)}"):
            merge(params, parse_override(setting))
        written.append({"model": "rdfa", "variant": "paper", "label": f"row {number}", "params": params})
    table = {"title": "Load", "dataset": "hacs", "scale": "sample", "seeds": [0], "rows": written}
    (folder / f"params/tables/{TABLE}.yaml").write_text(yaml.safe_dump(table))


def dry_run(folder: Path, rows: int) -> None:
    """`snakemake -n`: which jobs there are."""
    variables = {**os.environ, "PYTHONPATH": str(folder)}
    call = [sys.executable, "-m", "snakemake", "-n", "--quiet", "all", "--cores", "1", f"results/{TABLE}.csv"]
    done = subprocess.run(call, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def finished(folder: Path, rows: int) -> None:
    """Results of all rows, as if they had been trained."""
    for entry in read_table(TABLE)[1]:
        for composed in entry.runs:
            finish(folder, composed, 0.5)
    for run in (folder / "results/runs").iterdir():
        (run / HISTORY).write_text("epoch,loss\n" + "".join(f"{epoch},1.0\n" for epoch in range(1, EPOCHS + 1)))


def table(folder: Path, rows: int) -> None:
    command("table", TABLE, "--no-tracking")


RUNS = (Stage(name="MLflow: log runs", work=log_runs, makes=("mlflow.db*", "mlartifacts")),)
"""By the number of runs."""
ROWS = (Stage(name="snakemake -n", work=dry_run, makes=(".snakemake",)), Stage(name="table", work=table))
"""By the number of a table's rows."""
