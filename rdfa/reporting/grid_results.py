"""What the figures of a table show: its runs' metrics, losses and costs, a data set's rows together."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdfa.errors import RdfaError
from rdfa.files import read_json
from rdfa.identity import HISTORY, Paths, paths, run_name
from rdfa.models.cost import Cost, costs
from rdfa.records import intact
from rdfa.reporting.grids import Entry
from rdfa.schema import Run


@dataclass(frozen=True, eq=False, kw_only=True)
class BySize:
    """The normalised mAP of a row by the size of the instances (`evaluation.sensitivity`)."""

    characteristic: str
    bins: tuple[tuple[str, float | None, float | None, int], ...]
    """Name, lower and upper edge (None: none) and number of instances of each."""
    overall: NDArray[np.float64]
    """(S,): of all instances, per cent."""
    values: NDArray[np.float64]
    """(S, bins), per cent; NaN in a bin without instances."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RowResult:
    """A row of a table with what its S runs, one per seed, have reached."""

    label: str
    against: str | None
    """The row that it is compared with."""
    runs: tuple[Run, ...]
    where: tuple[Paths, ...]
    averages: NDArray[np.float64]
    """(S,): average mAP, per cent."""
    class_ap: dict[str, float]
    """Class → AP in per cent, mean over tIoU thresholds and seeds."""
    losses: tuple[NDArray[np.float64], ...]
    """Of each run that has a history, (E, 2): epoch and training loss."""
    cost: Cost
    """Of one forward pass of one window."""
    by_size: BySize | None
    """Where the row asks for it."""

    @property
    def run(self) -> Run:
        """The first seed's run."""
        return self.runs[0]

    @property
    def mean(self) -> float:
        """Average mAP over the seeds, per cent."""
        return float(self.averages.mean())

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds; nothing for a single one."""
        return float(self.averages.std(ddof=1)) if len(self.averages) > 1 else None


def by_data_set(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """A table's rows, parted by data set, in the order of the table."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.runs[0].run.dataset, []).append(entry)
    return groups


def read_results(entries: Sequence[Entry], root: Path) -> tuple[RowResult, ...]:
    """Read the records of rows' runs; counts what their detectors cost.

    Raises:
        RdfaError: a run's metrics are missing or unreadable; says which command makes them.
    """
    return tuple(_read_row(entry, root) for entry in entries)


def _read_row(entry: Entry, root: Path) -> RowResult:
    runs = tuple(composed.run for composed in entry.runs)
    where = tuple(paths(run, root) for run in runs)
    metrics = [read_metrics(run, root) for run in runs]
    classes = sorted({name for found in metrics for name in found["ap"]})
    return RowResult(
        label=entry.row.shown,
        against=entry.row.against,
        runs=runs,
        where=where,
        averages=100 * np.array([found["average_mAP"] for found in metrics]),
        class_ap={name: 100 * float(np.mean([found["ap"][name] for found in metrics])) for name in classes},
        losses=tuple(losses for place in where if len(losses := _losses(place.folder / HISTORY))),
        cost=costs(runs[0])[""],
        by_size=_by_size([found["sensitivity"] for found in metrics]) if runs[0].evaluation.sensitivity else None,
    )


def _by_size(found: Sequence[dict[str, Any]]) -> BySize:
    return BySize(
        characteristic=found[0]["characteristic"],
        bins=tuple((each["name"], each["above"], each["up_to"], each["instances"]) for each in found[0]["bins"]),
        overall=100 * np.array([each["average_mAP_N"] for each in found]),
        values=100 * np.array([[bin_["average_mAP_N"] for bin_ in each["bins"]] for each in found], dtype=np.float64),
    )


def read_metrics(run: Run, root: Path) -> dict[str, Any]:
    """What a run was evaluated to.

    Raises:
        RdfaError: it was not; says which command does it.
    """
    path = paths(run, root).metrics
    if not path.exists():
        raise RdfaError(f"{path}: not there; run: rdfa evaluate {run_name(run)}")
    return dict(read_json(path))


def _losses(history: Path) -> NDArray[np.float64]:
    """Epochs and losses (E, 2); an imported run has none."""
    if not history.exists():
        return np.zeros((0, 2))
    with intact(history).open(newline="", encoding="utf-8") as file:
        rows = [(float(row["epoch"]), float(row["loss"])) for row in csv.DictReader(file)]
    return np.array(rows).reshape(-1, 2)
