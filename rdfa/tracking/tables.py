"""A table in MLflow: an experiment of its own, in it a parent run for the table and a child for each of its runs.

A run is trained once, whatever tables it is in; so the children are light copies, made from `results/` when the table
is written. Model, detections and log stay with run of the training, which each child's description links to.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import Run as MlflowRun

from rdfa.tracking.store import NOTE, Store, curve, final, now

TABLE, CONTENT = "rdfa.table", "rdfa.content"
_PARENT = "mlflow.parentRunId"


@dataclass(frozen=True, kw_only=True)
class Child:
    """One run of a table, as `results/` has it."""

    name: str
    training: str
    """Id of run of the training."""
    params: Mapping[str, Any]
    """Those in which the table's runs differ, by the names that they have in `params/`."""
    tags: Mapping[str, str]
    history: Sequence[Mapping[str, float]]
    metrics: Mapping[str, float]
    seconds: float
    """How long the training took."""
    data: Path
    digest: str


@dataclass(frozen=True, kw_only=True)
class TableRuns:
    """A written table and its runs."""

    name: str
    title: str
    note: str
    """Markdown: what somebody who opens the table's run reads first."""
    children: Sequence[Child]
    files: Sequence[Path]
    """The first is the table itself as CSV: as long as it says the same, the run stays the same."""
    figures: Sequence[Path] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


def log_table(store: Store, table: TableRuns) -> str:
    """Log a table, unless the store has one of the same content; returns the id of its run."""
    experiment = store.experiment_named(f"{store.name}-{table.name}", _about(table.title))
    content = _content(table.files[0])
    run_id = find_table(store, table.name, table.files[0])
    fresh = run_id is None
    if run_id is None:
        for left in _of_content(store, experiment, content):  # by a process that was interrupted here
            store.client.delete_run(left.info.run_id)
        moment = now()
        tags = {TABLE: table.name, CONTENT: content, NOTE: table.note, **table.tags}
        run_id = _run(store, experiment, table.name, f"rdfa table {table.name}", tags, moment)
        longest = max(child.seconds for child in table.children)
        for place, child in enumerate(table.children):
            # Its duration is the training's. The list shows the youngest first, so that the rows are in order.
            _log_child(store, experiment, child, run_id, content, moment - int(1000 * longest) - place)
        for child in {child.digest: child for child in table.children}.values():
            store.log_dataset(run_id, child.data, child.data.name, child.digest, "training")
    log_figures(store, run_id, table.figures)
    store.log_results(run_id, {}, table.files)
    if fresh:
        store.end(run_id, "FINISHED")
    return run_id


def find_table(store: Store, name: str, csv: Path) -> str | None:
    """The id of the run of a table as its CSV has it now, if the store has it whole."""
    experiment = store.client.get_experiment_by_name(f"{store.name}-{name}")
    found = _of_content(store, experiment.experiment_id, _content(csv)) if experiment else []
    whole = [run for run in found if TABLE in run.data.tags and run.info.status == "FINISHED"]
    return str(whole[0].info.run_id) if whole else None


def log_figures(store: Store, run_id: str, figures: Sequence[Path]) -> None:
    """Put figures beside a logged table."""
    for figure in figures:
        store.log_file(run_id, figure, "figures")


def _content(csv: Path) -> str:
    return hashlib.sha256(csv.read_bytes()).hexdigest()[:12]


def _of_content(store: Store, experiment: str, content: str) -> list[MlflowRun]:
    return list(store.client.search_runs([experiment], f"tags.`{CONTENT}` = '{content}'", max_results=1000))


def _log_child(store: Store, experiment: str, child: Child, parent: str, content: str, moment: int) -> None:
    link = f"[the training run](#/experiments/{store.experiment}/runs/{child.training})"
    tags = {
        **child.tags,
        _PARENT: parent,
        CONTENT: content,
        "training_run": child.training,
        NOTE: f"A copy of {link}, made from `results/`. There: detections, metrics, log and the model that detects.",
    }
    run_id = _run(store, experiment, child.name, f"rdfa train {child.tags['run']}", tags, moment)
    store.log(run_id, [*final(child.metrics, moment), *curve(child.history, moment)], child.params)
    store.log_dataset(run_id, child.data, child.data.name, child.digest, "training")
    store.client.set_terminated(run_id, "FINISHED", moment + int(1000 * child.seconds))


def _run(store: Store, experiment: str, name: str, source: str, tags: Mapping[str, str], moment: int) -> str:
    every = {"mlflow.source.name": source, "mlflow.source.type": "LOCAL", **tags}
    return str(store.client.create_run(experiment, moment, every, name).info.run_id)


def _about(title: str) -> str:
    return (
        f"{title}. + opens the runs that the table is made of, Columns adds their metrics and parameters, "
        "Group by `row` gives means over seeds."
    )
