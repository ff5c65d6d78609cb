"""A project folder with a table on proposal maps: refinements of BMN+RCL, mAP by size, printed numbers apart."""

from pathlib import Path

import yaml

from rdfa.files import read_json, write_json, write_text
from rdfa.identity import paths
from rdfa.params import PARAMS
from rdfa.reporting.grids import read_table
from tests.reporting.runs import finish
from tests.reporting.scenes import write_project

REFINEMENTS = {0: (0.50, 0.54), 1: (0.52, 0.53), 5: (0.57, 0.61), 15: (0.55, 0.60)}
"""n → average mAP of each seed."""
TITLE = "printed, on other data, not comparable"
BINS = (("XS", 0.0, 0.2, 12), ("S", 0.2, 0.4, 0), ("M", 0.4, 1.0, 30))
"""One of them is empty."""


def write_refinements(root: Path, name: str) -> None:
    """Parameters, metrics and records, without training."""
    rows = [
        {"model": "bmn", "variant": "rcl", "label": f"n = {n}", "params": {"model": {"refine": {"iterations": n}}}}
        for n in REFINEMENTS
    ]
    rows.append({"model": "bmn", "variant": "plain", "label": "no RCL"})
    sensitivity = {"characteristic": "coverage", "bins": "activitynet"}
    about: dict[str, object] = {
        "title": "Refinements",
        "dataset": "activitynet_tsn",
        "scale": "sample",
        "seeds": [0, 1],
    }
    about["printed"] = {"title": TITLE, "model": "bmn", "variant": "rcl", "dataset": "activitynet_tsn"}
    table = about | {"params": {"evaluation": {"sensitivity": sensitivity}}, "rows": rows}
    write_project(root, {name: yaml.safe_dump(table)})
    _, entries = read_table(name, folder=root / PARAMS)
    for entry, averages in zip(entries, [*REFINEMENTS.values(), (0.4, 0.5)], strict=True):
        for composed, average in zip(entry.runs, averages, strict=True):
            finish(root, composed, average)
            metrics = paths(composed.run, root).metrics
            write_json(metrics, read_json(metrics) | {"ap": {"action": average}, "sensitivity": by_size(average)})
            write_text(paths(composed.run, root).folder / "history.csv", "epoch,loss\n1,0.5\n")


def by_size(average: float) -> dict[str, object]:
    """As `rdfa evaluate` writes it: the smallest instances are found worst."""
    bins = [
        {
            "name": bin_,
            "above": low,
            "up_to": high,
            "instances": count,
            "average_mAP_N": average * high if count else None,
        }
        for bin_, low, high, count in BINS
    ]
    return {"characteristic": "coverage", "average_mAP_N": average, "bins": bins, "sensitivity": 0.1, "impact": 0.1}
