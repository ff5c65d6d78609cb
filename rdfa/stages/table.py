"""`rdfa table`: a table from the metrics of its runs."""

from pathlib import Path

from rdfa.data.sources.own_digest import refuse_changed
from rdfa.files import write_json, write_text
from rdfa.identity import paths
from rdfa.locks import alone
from rdfa.params import PARAMS, read_yaml
from rdfa.reporting.columns import printed_rows
from rdfa.reporting.formats import Apart, to_csv, to_latex, to_markdown
from rdfa.reporting.grids import Entry, Table, read_table, table_key
from rdfa.reporting.tables import averages, curves_csv, rows_of
from rdfa.stages.logged import log_table
from rdfa.tracking import Store, tolerated


def table_stage(name: str, root: Path, scale: str | None = None, tracked: bool = True) -> list[Path]:
    """Write a table as CSV, Markdown and LaTeX, its averages as JSON and its curves as CSV; returns the paths."""
    table, entries = read_table(name, scale)
    runs = [composed.run for entry in entries for composed in entry.runs]
    each_once = {(run.dataset, str(run.source.own)): run for run in runs}  # there may be tens of thousands of files
    for run in each_once.values():
        refuse_changed(run.dataset, run.source.own, paths(run, root).data)
    with alone(name, root, "table"):
        return _write(name, table, entries, root, tracked)


def _write(name: str, table: Table, entries: list[Entry], root: Path, tracked: bool) -> list[Path]:
    published = read_yaml(PARAMS / "published.yaml")
    rows = rows_of(entries, root, published, table.columns)
    apart = None
    if table.printed is not None and all(row["published"] is None for row in rows):
        apart = Apart(table.printed.title, printed_rows(table.printed, published))
    confidence = entries[0].runs[0].run.evaluation.bootstrap.confidence
    texts = (
        to_csv(rows),
        to_markdown(table.title, rows, confidence, apart),
        to_latex(table.title, rows, confidence, apart),
        curves_csv(entries, root),
    )
    *written, made_of = files = table_files(name, root)
    made_of.unlink(missing_ok=True)  # it says what the others are made of: gone first and written last
    for path, text in zip(written, texts, strict=True):
        write_text(path, text)
    if tracked:
        with tolerated():
            log_table(Store(root), name, table, entries, rows, written, root)
    write_json(made_of, averages(rows, table_key(entries)))
    files[0].with_suffix(".stale.csv").unlink(missing_ok=True)
    return files


def table_files(name: str, root: Path) -> list[Path]:
    """A table's files: CSV, Markdown, LaTeX, training curves; last, averages and what it is made of as JSON."""
    return [root / "results" / f"{name}{ending}" for ending in (".csv", ".md", ".tex", "-curves.csv", ".json")]
