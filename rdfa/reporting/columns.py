"""Columns that a table's file asks for beside the mAP, and the published numbers beside a run."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rdfa.errors import RdfaError
from rdfa.params import flatten
from rdfa.reporting.grids import Column, Printed
from rdfa.schema import Run

Metrics = Mapping[str, Any]
"""What is in a metrics file."""


def further(column: Column, run: Run, results: Sequence[Metrics], printed: Mapping[str, Any]) -> dict[str, Any]:
    """Cells of a row by column name, empty where the metrics lack them; percentages are means over the seeds.

    published: mAP at single tIoUs, and costs.  recall: AR@AN and the area under it.  mAP_N: the normalised mAP by the
    size of the instances (`evaluation.sensitivity`), and the largest minus the smallest.

    Args:
        run: the first seed's.  results: of all seeds.  printed: what was published for it.
    """
    if column == "published":
        cells = {f"published mAP@{tiou:g}": value for tiou, value in printed.get("tious", {}).items()}
        return cells | {"published G MACs": printed.get("flops")}
    if column == "recall":
        if run.evaluation.recall is None:
            return {}
        names = [*(f"AR@{number}" for number in run.evaluation.recall.numbers), "AUC"]
        return {name: _mean([result["average_recall"][name] for result in results]) for name in names}
    return _sensitivity(results) if run.evaluation.sensitivity else {}


def _sensitivity(results: Sequence[Metrics]) -> dict[str, Any]:
    found = [result["sensitivity"] for result in results]
    what = found[0]["characteristic"]
    cells: dict[str, Any] = {"average mAP_N": _mean([each["average_mAP_N"] for each in found])}
    for index, first in enumerate(found[0]["bins"]):
        cells[f"{what} {first['name']}"] = _mean([each["bins"][index]["average_mAP_N"] for each in found])
    return cells | {f"sensitivity to {what}": _mean([each["sensitivity"] for each in found])}


def _mean(fractions: Sequence[float | None]) -> float | None:
    """In per cent; nothing where a seed has none."""
    known = [100 * value for value in fractions if value is not None]
    return statistics.fmean(known) if len(known) == len(fractions) else None


def published_result(run: Run, published: Mapping[str, Any]) -> dict[str, Any]:
    """What the paper has for a run at full scale on the features that the paper used, else nothing.

    Where it has several numbers by the value of a parameter (`by`, `rows`), the one for the run's value.
    """
    if run.source.kind == "sample":
        return {}
    entry = published.get(run.model_name, {})
    entry = entry.get("variants", {}).get(run.variant, entry)
    result = entry.get("results", {}).get(run.dataset, {})
    if result.get("run_features", result.get("features")) != run.features.encoder:
        return {}
    if "by" in result:
        return dict(result["rows"].get(flatten(run)[result["by"]], {}))
    return dict(result)


def printed_rows(printed: Printed, published: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The published numbers that a table shows apart, a row for each value of the parameter that they go by.

    Raises:
        RdfaError: none are known.
    """
    variant = published.get(printed.model, {}).get("variants", {}).get(printed.variant, {})
    result = variant.get("results", {}).get(printed.dataset)
    if result is None:
        raise RdfaError(
            f"params/published.yaml has nothing for {printed.model} {printed.variant} on {printed.dataset}: "
            "correct `printed` in the table's file"
        )
    by = result.get("by", "").rpartition(".")[2]
    return [
        ({by: value} if by else {})
        | {f"mAP@{tiou:g}": cell for tiou, cell in row["tious"].items()}
        | {"average": row["average"], "G MACs": row.get("flops")}
        for value, row in (result["rows"] if by else {None: result}).items()
    ]
