"""What MLflow gets of `results/`: the runs of trainings, and tables with copies of their runs.

In order of reading: `log_results`, `import_run` (a training made elsewhere), `log_table`, `log_figures`.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdfa.files import read_json
from rdfa.identity import CHECKPOINT, HISTORY, LOG, PARAMS_YAML, RUN_JSON, Paths, data_name, paths, run_name
from rdfa.params import flatten, read_run
from rdfa.provenance import provenance
from rdfa.records import intact
from rdfa.reporting.grids import Entry, Table
from rdfa.schema import Run
from rdfa.stages.opened import is_planted
from rdfa.stages.tags import tags
from rdfa.tracking import Store
from rdfa.tracking.registry import RUN, register
from rdfa.tracking.store import curve, now
from rdfa.tracking.tables import Child, TableRuns, find_table
from rdfa.tracking.tables import log_figures as _log_figures
from rdfa.tracking.tables import log_table as _log_table

_IDENTITY = ("dataset", "model_name", "variant", "scale", "seed")
_NOTE = """\
**{title}**

{planted}| row | average mAP, % |
|---|---|
{rows}

Every column: `{name}.csv` under *Artifacts*, and figures where they were drawn. Numbers are those of `results/`.
"""
_PLANTED = "Planted sample data: the numbers show that the pipeline works, and nothing else.\n\n"
_BEST = (
    "The best of the {runs} runs of `{table}` on {dataset} (scale {scale}), by average mAP on the test split, so "
    "chosen on what it is measured on. {planted}Made from `{folder}`."
)


def log_results(store: Store, run_id: str, where: Paths) -> None:
    """Log a run's metrics and detections."""
    store.log_results(run_id, _metrics(where.metrics), [where.metrics, where.detections])


def import_run(store: Store, folder: Path, root: Path) -> str:
    """Rebuild a training's run from its folder; returns its id.

    Of a training that was made elsewhere, whose store is gone, or that was killed when all but MLflow was done.
    """
    run, record = read_run(intact(folder / PARAMS_YAML)), read_json(folder / RUN_JSON)
    digest, seconds = record["data_digest"], float(record.get("seconds", 0))
    found = tags(run, digest, record["made_by"])
    run_id = store.start(run_name(run), record["key"], flatten(run), found, seconds)
    store.log(run_id, curve(_history(folder), now()))
    data = root / "data" / data_name(run)
    store.log_dataset(run_id, data, data.name, digest, "training")
    files = [folder / name for name in (PARAMS_YAML, HISTORY, LOG, RUN_JSON)]
    store.log_results(run_id, {"parameters": record["parameters"]}, [file for file in files if file.exists()])
    store.end(run_id, "FINISHED")
    return run_id


def log_model(store: Store, run_id: str, run: Run, folder: Path) -> str:
    """Log a trained run's model; returns its id."""
    model = {"checkpoint": CHECKPOINT, "params": PARAMS_YAML, "record": RUN_JSON}
    return store.log_model(run_id, {name: folder / file for name, file in model.items()}, run.features.dimension)


def log_table(
    store: Store,
    name: str,
    table: Table,
    entries: Sequence[Entry],
    rows: Sequence[Mapping[str, Any]],
    files: Sequence[Path],
    root: Path,
) -> None:
    """Log a written table, its runs where the store lacks them, and the best run of each data set as a model.

    Args:
        rows: as `rdfa.reporting.tables.rows_of` gives them.
        files: of the table, the CSV first.
    """
    made = [_Made(entry, composed.run, root) for entry in entries for composed in entry.runs]
    trainings = [_training(store, each, root) for each in made]
    values = [flatten(each.run) for each in made]
    names = dict.fromkeys(name for found in values for name in found)
    differing = [name for name in names if len({str(found.get(name)) for found in values}) > 1]
    children = [
        _child(each, {name: found[name] for name in differing if name in found}, training)
        for each, found, training in zip(made, values, trainings, strict=True)
    ]
    several = len({each.run.dataset for each in made}) > 1
    lines = [f"| {row['row' if several else 'variant']} | {row['average']:.2f}{_spread(row['std'])} |" for row in rows]
    planted = _PLANTED if any(is_planted(each.run) for each in made) else ""
    experiment = provenance()["dvc_experiment"]
    _log_table(
        store,
        TableRuns(
            name=name,
            title=table.title,
            note=_NOTE.format(title=table.title, planted=planted, rows="\n".join(lines), name=name),
            children=children,
            files=files,
            figures=_figures(name, root),
            tags={"scale": made[0].run.scale} | ({"dvc.exp_name": experiment} if experiment else {}),
        ),
    )
    for dataset in dict.fromkeys(each.run.dataset for each in made):
        of_it = [number for number, each in enumerate(made) if each.run.dataset == dataset]
        best = max(of_it, key=lambda number: children[number].metrics["mAP_average"])
        alias = f"best-{dataset}" if several else "best"
        _register(store, name, alias.replace(".", "_"), made[best], children[best], len(of_it))


def log_figures(store: Store, name: str, csv: Path, root: Path) -> None:
    """Put the figures that were drawn of a logged table beside it."""
    run_id = find_table(store, name, csv)
    if run_id is not None:
        _log_figures(store, run_id, _figures(name, root))


def _figures(name: str, root: Path) -> list[Path]:
    return sorted((root / "results" / "figures" / name).glob("*.svg"))


class _Made:
    """One run of a table and where its results are."""

    def __init__(self, entry: Entry, run: Run, root: Path) -> None:
        self.entry, self.run, self.where = entry, run, paths(run, root)
        self.record = read_json(self.where.folder / RUN_JSON)


def _training(store: Store, made: _Made, root: Path) -> str:
    """The id of a run's training; what the store lacks of it is imported."""
    found = store.find(made.record["key"]) or import_run(store, made.where.folder, root)
    if not store.has(found, "mAP_average"):
        log_results(store, found, made.where)
    return found


def _child(made: _Made, params: Mapping[str, Any], training: str) -> Child:
    run, where, record = made.run, made.where, made.record
    costs = {"parameters": "parameters", "training_seconds": "seconds", "peak_memory_mib": "peak_memory_mib"}
    row = f"{run.dataset} {made.entry.row.shown}" if "dataset" in params else made.entry.row.shown
    return Child(
        name=f"{row}, seed {run.seed}",
        training=training,
        params={"row": row, "seed": run.seed, **params},
        tags=tags(run, record["data_digest"], record["made_by"]) | {"run": where.folder.name},
        history=_history(where.folder),
        metrics=_metrics(where.metrics) | {name: record[key] for name, key in costs.items() if key in record},
        seconds=float(record.get("seconds", 0)),
        data=where.data,
        digest=record["data_digest"],
    )


def _register(store: Store, table: str, alias: str, made: _Made, child: Child, runs: int) -> None:
    run, where = made.run, made.where
    model = store.model_of(child.training) or log_model(store, child.training, run, where.folder)
    found = {
        RUN: f"{where.folder.name}/{where.metrics.name}",
        "data_set": run.dataset,
        "scale": run.scale,
        "average_mAP": f"{child.metrics['mAP_average']:.4f}",
        "planted_data": str(is_planted(run)).lower(),
    }
    description = _BEST.format(
        runs=runs,
        table=table,
        dataset=run.dataset,
        scale=run.scale,
        planted=_PLANTED.strip() + " " if is_planted(run) else "",
        folder=where.folder.name,
    )
    register(store, table, alias, model, found, description)


def _metrics(path: Path) -> dict[str, float]:
    """What a run was evaluated to, fractions; recall and normalised mAP where it was evaluated so.

    MLflow takes no `@` in a name: `AR@100` is `AR_100`.
    """
    result = read_json(path)
    named = {f"mAP_{tiou:g}": value for tiou, value in zip(result["tiou"], result["mAP"], strict=True)}
    recall = result.get("average_recall", {})
    named |= {name.replace("@", "_"): value for name, value in recall.items() if name != "tiou"}
    normalised = {"mAP_N_average": result.get("sensitivity", {}).get("average_mAP_N")}
    found = named | {"mAP_average": result["average_mAP"]} | normalised
    return {name: value for name, value in found.items() if value is not None}


def _history(folder: Path) -> list[dict[str, float]]:
    with intact(folder / HISTORY).open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def _spread(deviation: float | None) -> str:
    return "" if deviation is None else f" ± {deviation:.2f}"
