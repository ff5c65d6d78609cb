"""Which runs a table is made of, from its file in `params/tables/`.

A file names rows (model, variant, and parameters that the row changes), seeds and a scale. Rows that name no data set
are of the table's own; then the same grid is there for every other data set, as the table `<data set>_<table>`, with
what the file says for it under `datasets:`. A run is trained once, whatever tables it is in.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from rdfa.errors import RdfaError
from rdfa.files import read_json
from rdfa.identity import paths
from rdfa.locks import untouched
from rdfa.params import PARAMS, Composed, compose, leaves, merged, read_yaml
from rdfa.schema import Line, Name, Section, Seed

Column = Literal["published", "recall", "mAP_N"]
_TABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MOST_SEEDS = 100
"""More than this is a seed that was meant, not a number of seeds."""
UNLABELLED = "labels ignored: every instance and every detection is an action"


def _first_seeds(value: Any) -> Any:
    """A number of seeds as the list of the first so many, from 0 on; anything else as it is."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if not 0 < value <= _MOST_SEEDS:
        raise ValueError(f"must be a number of seeds from 1 to {_MOST_SEEDS} or a list of seeds, not {value}")
    return tuple(range(value))


Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), BeforeValidator(_first_seeds)]
"""`[4, 7]`: these. `3`: the first three, 0, 1 and 2."""


class Row(Section):
    """One row: a run per seed."""

    dataset: Name | None = None
    """null: the table's."""
    model: Name
    variant: Name
    label: Line | None = None
    """Shown instead of the variant, for rows that change parameters."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters that this row changes, nested as in any other file."""
    against: Line | None = None
    """The row, by what is shown for it, that this one is compared with, seed by seed."""
    scales: tuple[Name, ...] | None = None
    """Scales at which the table has this row; null: at every one."""

    @property
    def shown(self) -> str:
        """What the table calls it."""
        return self.label or self.variant


class Elsewhere(Section):
    """What a table's file says for its grid on another data set; null: as on its own."""

    scale: Name | None = None
    seeds: Seeds | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    """Come after those of the table, before those of the rows."""


class Printed(Section):
    """Published numbers (params/published.yaml) that stand apart under a table whose own rows are of other data."""

    title: Line
    """What they are of, and that they are not comparable."""
    model: Name
    variant: Name
    dataset: Name


class Table(Section):
    """A table's file."""

    title: Line
    label: Line | None = None
    """What menus of report and site call it; null: `Table 2` for the file `table2`, else the file's name."""
    dataset: Name | None = None
    """Of the rows that name none."""
    scale: Name
    """Default scale; `snakemake --config scale=...` overrides it."""
    seeds: Seeds
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters that the table changes in every row; a row's own come after them."""
    datasets: dict[Name, Elsewhere] = Field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    """Further columns, after the mAP (rdfa.reporting.columns)."""
    printed: Printed | None = None
    """Shown only where no row has published numbers beside it."""
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _rows_have_a_data_set(self) -> Self:
        named = [row.dataset is not None for row in self.rows]
        if self.dataset is None and not all(named):
            raise ValueError("a row names no data set, and the table has none: set `dataset`")
        if self.dataset is not None and any(named):
            raise ValueError("`dataset` is set, and a row names one of its own: leave out one of them")
        if self.datasets and self.dataset is None:
            raise ValueError("`datasets` is for tables whose rows name none: set `dataset`")
        return self

    @model_validator(mode="after")
    def _rows_are_told_apart(self) -> Self:
        shown = Counter((row.dataset, row.shown) for row in self.rows)
        for (dataset, name), count in shown.items():
            if count > 1:
                raise ValueError(f"two rows of {dataset or self.dataset} are called {name!r}: give them a label each")
        for row in self.rows:
            if row.against is not None and (row.dataset, row.against) not in shown:
                raise ValueError(
                    f"{row.shown!r} is compared with {row.against!r}, which no row of {row.dataset or self.dataset} is"
                )
        return self

    def on(self, dataset: str | None) -> Self:
        """The same grid on a data set (null: its own), each row naming it."""
        if self.dataset is None:
            return self
        dataset = dataset or self.dataset
        other = self.datasets.get(dataset, Elsewhere())
        scale = other.scale or self.scale
        changed: dict[str, Any] = {
            "scale": scale,
            "seeds": other.seeds or self.seeds,
            "params": merged(self.params, other.params),
            "rows": tuple(row.model_copy(update={"dataset": dataset}) for row in self.rows),
        }
        return self.model_copy(update=changed)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row with its runs, one per seed."""

    row: Row
    runs: tuple[Composed, ...]


def table_names(folder: Path = PARAMS) -> list[str]:
    """The tables that have a file.

    Raises:
        RdfaError: a file's name cannot be a table's: it becomes a part of paths and of shell commands.
    """
    paths = sorted((folder / "tables").glob("*.yaml"))
    for path in paths:
        if not _TABLE_NAME.fullmatch(path.stem):
            raise RdfaError(f"{str(path)!r}: rename it: a table's name has only letters, digits, '_', '.' and '-'")
    return [path.stem for path in paths]


def elsewhere(folder: Path = PARAMS) -> dict[str, tuple[str, str]]:
    """The tables that are a file's grid on another data set: `<data set>_<table>` → table and data set.

    Raises:
        RdfaError: a table's file is not valid.
    """
    datasets = sorted(path.stem for path in (folder / "datasets").glob("*.yaml"))
    files = table_names(folder)
    found: dict[str, tuple[str, str]] = {}
    for name in files:
        own = read_file(folder / "tables" / f"{name}.yaml").dataset
        others = [dataset for dataset in datasets if own not in (None, dataset)]
        found |= {f"{dataset}_{name}": (name, dataset) for dataset in others if f"{dataset}_{name}" not in files}
    return found


def read_table(name: str, scale: str | None = None, folder: Path = PARAMS) -> tuple[Table, list[Entry]]:
    """Read a table and compose its runs.

    Args:
        name: of a file in `params/tables/`, or `<data set>_<table>` (`elsewhere`).
        scale: instead of the table's own.

    Raises:
        RdfaError: the file or one of its runs is not valid; names file and key.
    """
    path, dataset = _file_of(name, folder)
    table = read_file(path).on(dataset)
    scale = scale or table.scale
    if table.dataset is not None:
        table = table.model_copy(update={"title": f"{table.title} ({dataset or table.dataset}, scale {scale})"})
    entries = []
    for number, written in enumerate(table.rows, 1):
        if written.scales is not None and scale not in written.scales:
            continue
        row = written.model_copy(update={"params": merged(table.params, written.params)})
        assert row.dataset is not None
        runs = tuple(
            compose(
                dataset=row.dataset,
                model=row.model,
                variant=row.variant,
                scale=scale,
                seed=seed,
                row=row.params,
                row_origin=f"{path} row {number}",
                folder=folder,
            )
            for seed in table.seeds
        )
        entries.append(Entry(row=row, runs=runs))
    if any(composed.run.evaluation.agnostic for entry in entries for composed in entry.runs):
        table = table.model_copy(update={"title": f"{table.title}; {UNLABELLED}"})
    return table, entries


def _file_of(name: str, folder: Path) -> tuple[Path, str | None]:
    """The file of a table and, for a grid on another data set, that; asks no file but the one that it finds."""
    own = folder / "tables" / f"{name}.yaml"
    if not _TABLE_NAME.fullmatch(name):
        raise RdfaError(f"{name!r} cannot be a table's name; there is: {', '.join(table_names(folder))}")
    for file in [] if own.exists() else table_names(folder):
        dataset = name.removesuffix(f"_{file}")
        if dataset != name and (folder / "datasets" / f"{dataset}.yaml").exists():
            path = own.with_stem(file)
            if read_file(path).dataset not in (None, dataset):
                return path, dataset
    return own, None


def read_file(path: Path) -> Table:
    """A table's file as it is written, without its runs.

    Raises:
        RdfaError: it is missing or not valid; names file and key.
    """
    values = read_yaml(path)
    try:
        return Table.model_validate(_tuples(values))
    except ValidationError as error:
        detail = error.errors()[0]
        where = "".join(f"{part}: " for part in [".".join(map(str, detail["loc"]))] if part)
        raise RdfaError(f"{path}: {where}{detail['msg'].removeprefix('Value error, ')}") from error


def table_key(entries: Sequence[Entry]) -> str:
    """Hash of what a table is made of, rows and metrics files: it is stale when this differs."""
    rows = [[entry.row.dataset, entry.row.shown, entry.row.against] for entry in entries]
    files = [[str(paths(composed.run).metrics) for composed in entry.runs] for entry in entries]
    return hashlib.sha256(json.dumps([rows, files]).encode()).hexdigest()[:8]


def keep_only_current(table: Path, key: str) -> None:
    """Set a written table aside as `*.stale.csv` if it is not made of what `key` says; take it back if it is again.

    A table's name holds no key, and Snakemake trusts a file as long as it is there, even if the runs that it should
    be made of are missing. What a table was made of stands in the JSON beside it.
    """
    aside = table.with_suffix(".stale.csv")
    if not (table.exists() or aside.exists()):
        return
    with untouched(table.stem, table.parents[1], "table") as free:  # else a process is writing it: not whole yet
        if free:
            _set_aside(table, aside, made_of(table.with_suffix(".json")) == key)


def _set_aside(table: Path, aside: Path, current: bool) -> None:
    if current and aside.exists() and not table.exists():
        aside.replace(table)
    elif not current and table.exists():
        table.replace(aside)


def made_of(record: Path) -> Any:
    """The key of what was written, from the JSON beside it; None where that is missing, damaged or has none."""
    try:
        return read_json(record)["made_of"]
    except (RdfaError, KeyError, TypeError):
        return None


def set_options(row: Row) -> list[str]:
    """What a row changes, as `--set` options of a command."""
    return [f"--set={key}={json.dumps(value)}" for key, value in leaves(row.params)]


def _tuples(value: Any) -> Any:
    """Lists as tuples, which strict validation asks for; mappings under `params` stay as they are."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: item if key == "params" else _tuples(item) for key, item in value.items()}
    return value
