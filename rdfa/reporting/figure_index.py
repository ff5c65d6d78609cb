"""Where a table's figures are, and whether they are made of what they should be.

`results/figures/<table>/` holds SVG files and `index.json`: what they are made of, and for each its title, caption and
alternative text. A table with several data sets has each figure once for each, `<figure>-<data set>.svg`.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdfa.identity import code_digest
from rdfa.locks import untouched
from rdfa.params import PARAMS
from rdfa.reporting.grids import Entry, Table, elsewhere, made_of, read_file, table_key, table_names

INDEX = "index.json"
TABLE_PAGE = "table.html"
"""The table itself, rendered for Snakemake's report."""
CAPTIONS = "captions"
"""Folder of each figure's caption as HTML, which the report's captions take in."""
_CODE = ["rdfa.reporting.grid_figures", "rdfa.reporting.pages"]
"""By name: what draws is heavy to import, and `snakemake` asks for keys at each start."""


def figures_folder(table: str, root: Path = Path()) -> Path:
    """Where a table's figures are."""
    return root / "results" / "figures" / table


def shown_names(folder: Path = PARAMS) -> dict[str, str]:
    """Every table → what readers see, in the order of the paper: `Table 2`, then `Table 2 on hapt`, then the others.

    The others have no number that would mean something: their files say what they are called.

    Raises:
        RdfaError: a table's file is not valid.
    """
    found = {}
    others = elsewhere(folder)
    for name in [*table_names(folder), *others]:
        file, dataset = others.get(name, (name, None))
        numbered = re.fullmatch(r"table(\d+)", file)
        written = read_file(folder / "tables" / f"{file}.yaml").label
        label = (written or (f"Table {numbered[1]}" if numbered else file)) + (f" on {dataset}" if dataset else "")
        found[name] = ((0, int(numbered[1])) if numbered else (1, 0), label.casefold(), label)
    return {name: label for name, (*_, label) in sorted(found.items(), key=lambda item: item[1])}


def figures_key(table: Table, entries: Sequence[Entry]) -> str:
    """Hash of what a table's figures show: what the table is made of, its title, and the code that draws."""
    parts = [table_key(entries), table.title, code_digest(_CODE)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def keep_only_current_figures(folder: Path, key: str) -> None:
    """Set figures aside as `<table>.stale` if they are not made of what `key` says; take them back if they are again.

    As with tables (`rdfa.reporting.grids.keep_only_current`): Snakemake trusts what is there.
    """
    aside = folder.with_name(f"{folder.name}.stale")
    if not (folder.exists() or aside.exists()):
        return
    with untouched(folder.name, folder.parents[2], "figures") as free:  # else a process is drawing them
        if free:
            _set_aside(folder, aside, key)


def _set_aside(folder: Path, aside: Path, key: str) -> None:
    if folder.exists() and figures_made_of(folder) != key:
        if figures_made_of(aside) == key:
            shutil.rmtree(folder)
        else:
            shutil.rmtree(aside, ignore_errors=True)
            folder.replace(aside)
    if aside.exists() and not folder.exists() and figures_made_of(aside) == key:
        aside.replace(folder)


def figures_made_of(folder: Path) -> Any:
    """The key of the figures in a folder; None where there are no whole ones."""
    return made_of(folder / INDEX)
