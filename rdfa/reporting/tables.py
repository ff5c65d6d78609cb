"""Tables: how the metrics of their runs (rdfa.reporting.grids) become CSV and Markdown.

Every number comes from a `metrics-*.json` of a run; published ones from `params/published.yaml`.
"""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdfa.errors import RdfaError
from rdfa.files import read_json
from rdfa.identity import HISTORY, RUN_JSON, paths, run_name
from rdfa.reporting.columns import further, published_result
from rdfa.reporting.grids import Column, Entry
from rdfa.schema import Run

SAMPLE_NOTE = (
    "Scale `sample`: planted features, small models, few epochs. These numbers show that the pipeline works. They are "
    "not comparable with any published number; those are in `params/published.yaml`."
)

BEST_OF_TEST_NOTE = (
    "`best of test` is the largest average among the looks at the test split during the same training, as the released "
    "code reports: selected on the split that it is measured on. The headline is the last epoch's `average`."
)


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
    by_name = {(entry.row.dataset, entry.row.shown): entry for entry in entries}
    return [
        _row(entry, by_name.get((entry.row.dataset, entry.row.against or "")), root, tious, published, columns)
        for entry in entries
    ]


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, numbers with two decimals."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def to_markdown(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as Markdown: one block per list of columns that have values, so that no cell is empty."""
    blocks: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in map(_with_spread, rows):
        shown = (name for name, value in row.items() if value not in ("", None) and name != "row")
        blocks.setdefault(tuple(shown), []).append(row)
    lines = [f"# {title}", ""]
    if any(row["scale"] == "sample" for row in rows):
        lines += [SAMPLE_NOTE, ""]
    for columns, members in blocks.items():
        lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(_cell(row[name]) for name in columns) + " |" for row in members]
        lines.append("")
    lines.append("mAP in per cent at each tIoU; `average` is their mean.")
    if any(row["std"] is not None for row in rows):
        lines.append("± is the standard deviation over the seeds; `change` is paired, seed by seed.")
    if any(row["best of test"] is not None for row in rows):
        lines.append(BEST_OF_TEST_NOTE)
    return "\n".join(lines) + "\n"


def _with_spread(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for readers: mean and standard deviation in one cell."""
    joined = dict(row)
    for name, spread in (("average", "std"), ("change", "change std")):
        if row[spread] is not None:
            joined[name], joined[spread] = f"{row[name]:.2f} ± {row[spread]:.2f}", None
    return joined


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
            with (paths(run, root).folder / HISTORY).open(newline="") as file:
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
    against: Entry | None,
    root: Path,
    tious: Sequence[float],
    published: Mapping[str, Any],
    columns: Sequence[Column],
) -> dict[str, Any]:
    run = entry.runs[0].run
    results = [_metrics(composed.run, root) for composed in entry.runs]
    records = [read_json(paths(composed.run, root).folder / RUN_JSON) for composed in entry.runs]
    averages_found = _averages(results)
    changes: list[float] = []
    if against is not None:
        others = _averages([_metrics(composed.run, root) for composed in against.runs])
        changes = [own - other for own, other in zip(averages_found, others, strict=True)]
    average = statistics.fmean(averages_found)
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
        "std": _spread(averages_found),
        "against": entry.row.against,
        "change": statistics.fmean(changes) if changes else None,
        "change std": _spread(changes),
        "published": paper,
        "difference": average - paper if paper is not None else None,
    }
    for column in columns:
        row |= further(column, run, results, printed)
    row |= {
        "parameters": records[0]["parameters"],
        "selection": "; ".join(dict.fromkeys(_selection(run, record) for record in records)),
        "best of test": _best_of_test(records),
        "test looks": "; ".join(dict.fromkeys(filter(None, map(_looks, records)))) or None,
        "runs": " ".join(paths(composed.run).folder.name for composed in entry.runs),
        "row": f"{run.dataset} {entry.row.shown}",
    }
    return row


def _averages(results: Sequence[Mapping[str, Any]]) -> list[float]:
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


def _metrics(run: Run, root: Path) -> dict[str, Any]:
    path = paths(run, root).metrics
    if not path.exists():
        raise RdfaError(f"{path}: not there; run: rdfa evaluate {run_name(run)}")
    return dict(read_json(path))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
