"""Tables: the rows that the metrics of their runs (rdfa.reporting.grids) make, and the curves of their trainings.

Every number comes from a `metrics-*.json` of a run; published ones from `params/published.yaml`.
"""

import csv
import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rdfa.files import read_json
from rdfa.identity import HISTORY, RUN_JSON, paths
from rdfa.models.cost import costs
from rdfa.records import intact
from rdfa.reporting.columns import Metrics, further, published_result
from rdfa.reporting.comparison import Floats, change_of, interval, replicates_of, verdict
from rdfa.reporting.grid_results import read_metrics
from rdfa.reporting.grids import Column, Entry
from rdfa.schema import Run


def rows_of(
    entries: Sequence[Entry], root: Path, published: Mapping[str, Any], columns: Sequence[Column] = ()
) -> list[dict[str, Any]]:
    """One dictionary per row of a table, the CSV's columns as keys; mAP in per cent. `row` names it in plots.

    Args:
        columns: further ones.

    Raises:
        RdfaError: a run's metrics are missing; says which command makes them.
    """
    tious = sorted({tiou for entry in entries for tiou in entry.runs[0].run.evaluation.tious})
    results = [[read_metrics(composed.run, root) for composed in entry.runs] for entry in entries]
    by_name = {(entry.row.dataset, entry.row.shown): found for entry, found in zip(entries, results, strict=True)}
    return [
        _row(entry, found, by_name.get((entry.row.dataset, entry.row.against or "")), root, tious, published, columns)
        for entry, found in zip(entries, results, strict=True)
    ]


def averages(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """Average mAP per data set and variant, for `dvc metrics show`, and what the table is made of."""
    found: dict[str, Any] = {"made_of": key}
    for row in rows:
        found.setdefault(row["data set"], {})[row["variant"]] = round(row["average"], 4)
    return found


def curves_csv(entries: Sequence[Entry], root: Path) -> str:
    """Training loss per epoch, a column per run, for `dvc plots show`."""
    columns: dict[str, dict[str, str]] = {}
    for entry in entries:
        for composed in entry.runs:
            run = composed.run
            with intact(paths(run, root).folder / HISTORY).open(newline="") as file:
                name = f"{run.dataset} {entry.row.shown} s{run.seed}"
                columns[name] = {row["epoch"]: row["loss"] for row in csv.DictReader(file)}
    epochs = sorted({epoch for column in columns.values() for epoch in column}, key=float)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", *columns])
    writer.writerows([epoch, *(column.get(epoch, "") for column in columns.values())] for epoch in epochs)
    return text.getvalue()


def _row(
    entry: Entry,
    results: Sequence[Metrics],
    against: Sequence[Metrics] | None,
    root: Path,
    tious: Sequence[float],
    published: Mapping[str, Any],
    columns: Sequence[Column],
) -> dict[str, Any]:
    run = entry.runs[0].run
    records = [read_json(paths(composed.run, root).folder / RUN_JSON) for composed in entry.runs]
    found_averages, replicates = _averages(results), replicates_of(results)
    within = interval(replicates, run.evaluation.bootstrap)
    average = statistics.fmean(found_averages)
    printed = published_result(run, published)
    paper = printed.get("average")
    row: dict[str, Any] = {
        "data set": run.dataset,
        "scale": run.scale,
        "features": run.features.encoder,
        "model": run.model_name,
        "variant": entry.row.shown,
        "seeds": " ".join(str(composed.run.seed) for composed in entry.runs),
    }
    for tiou in tious:
        found = [100 * result["mAP"][result["tiou"].index(tiou)] for result in results if tiou in result["tiou"]]
        row[f"mAP@{tiou:g}"] = statistics.fmean(found) if found else None
    row |= {
        "average": average,
        "std": _spread(found_averages),
        "low": max(within.low, 0.0),
        "high": min(within.high, 100.0),
        **_change(entry, against, found_averages, replicates),
        "published": paper,
        "difference": average - paper if paper is not None else None,
        **{name: value for column in columns for name, value in further(column, run, results, printed).items()},
        "parameters": records[0]["parameters"],
        "G MACs": costs(run)[""].macs / 1e9,
        "CPU s per step": _mean_cost(records, lambda record: record["cpu_seconds"] / record["steps"]),
        "peak MiB": _mean_cost(records, lambda record: record["peak_memory_mib"]),
        "selection": "; ".join(dict.fromkeys(_selection(run, record) for record in records)),
        "best of test": _best_of_test(records),
        "test looks": "; ".join(dict.fromkeys(filter(None, map(_looks, records)))) or None,
        "runs": " ".join(paths(composed.run).folder.name for composed in entry.runs),
        "row": f"{run.dataset} {entry.row.shown}",
    }
    return row


def _change(
    entry: Entry, against: Sequence[Metrics] | None, own: Sequence[float], replicates: Floats
) -> dict[str, Any]:
    """The columns that compare a row with the one that it names."""
    row: dict[str, Any] = dict.fromkeys(("against", "change", "change std", "change low", "change high", "noise"))
    other = entry.row.against
    if other is None or against is None:
        return row
    changes = [one - another for one, another in zip(own, _averages(against), strict=True)]
    drawn = change_of(replicates, replicates_of(against), entry.row.shown, other)
    within = interval(drawn, entry.runs[0].run.evaluation.bootstrap)
    return row | {
        "against": other,
        "change": statistics.fmean(changes),
        "change std": _spread(changes),
        "change low": within.low,
        "change high": within.high,
        "noise": verdict(within, len(own)),
    }


def _mean_cost(records: Sequence[Mapping[str, Any]], cost: Callable[[Mapping[str, Any]], float]) -> float | None:
    """Of the trainings that were made here; nothing where weights were imported."""
    trained = [record for record in records if "imported_from" not in record]
    return statistics.fmean(map(cost, trained)) if trained else None


def _averages(results: Sequence[Metrics]) -> list[float]:
    """Average mAP of each of a row's runs, in per cent."""
    return [100 * result["average_mAP"] for result in results]


def _spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation over the seeds; nothing for a single one."""
    return statistics.stdev(values) if len(values) > 1 else None


def _selection(run: Run, record: Mapping[str, Any]) -> str:
    """Which weights a run's metrics are of."""
    if run.detection.weights == "best_test":
        return f"selected on test, {_looks(record)}"
    return f"{'imported' if 'imported_from' in record else 'last'} (epoch {record['epoch']})"


def _best_of_test(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean over the seeds of the best look's average mAP, in per cent; nothing if a run did not look."""
    looks = [record["test_looks"] for record in records]
    return statistics.fmean(100 * look["best_mAP"] for look in looks) if all(looks) else None


def _looks(record: Mapping[str, Any]) -> str | None:
    looks = record["test_looks"]
    return f"best of {looks['looks']} (epoch {looks['best_epoch']})" if looks else None
