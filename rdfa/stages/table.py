"""`rdfa table`: a table from the metrics of its runs."""

from pathlib import Path

from rdfa.data.sources.own_digest import refuse_changed
from rdfa.files import write_json, write_text
from rdfa.identity import paths
from rdfa.params import PARAMS, read_yaml
from rdfa.reporting.grids import read_table, table_key
from rdfa.reporting.tables import averages, curves_csv, rows_of, to_csv, to_markdown
from rdfa.stages.logged import log_table
from rdfa.tracking import Store, tolerated


def table_stage(name: str, root: Path, scale: str | None = None, tracked: bool = True) -> list[Path]:
    """Write a table as CSV and Markdown, its averages as JSON and its curves as CSV; returns the paths."""
    table, entries = read_table(name, scale)
    for run in (composed.run for entry in entries for composed in entry.runs):
        refuse_changed(run.dataset, run.source.own, paths(run, root).data)
    rows = rows_of(entries, root, read_yaml(PARAMS / "published.yaml"))
    files = table_files(name, root)
    texts = [to_csv(rows), to_markdown(table.title, rows), None, curves_csv(entries, root)]
    for path, text in zip(files, texts, strict=True):
        write_json(path, averages(rows, table_key(entries))) if text is None else write_text(path, text)
    files[0].with_suffix(".stale.csv").unlink(missing_ok=True)
    if tracked:
        with tolerated():
            log_table(Store(root), name, table, entries, rows, files, root)
    return files


def table_files(name: str, root: Path) -> list[Path]:
    """A table's files: CSV, Markdown, averages and what it is made of as JSON, training curves."""
    return [root / "results" / f"{name}{ending}" for ending in (".csv", ".md", ".json", "-curves.csv")]
