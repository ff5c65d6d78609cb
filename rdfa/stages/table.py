"""`rdfa table`: a table from the metrics of its runs."""

from pathlib import Path

from rdfa.data.sources.own_digest import refuse_changed
from rdfa.files import write_json, write_text
from rdfa.identity import keys, paths
from rdfa.params import PARAMS, read_yaml
from rdfa.reporting.formats import to_csv, to_latex, to_markdown
from rdfa.reporting.grids import read_table, table_key
from rdfa.reporting.tables import averages, curves_csv, rows_of
from rdfa.tracking import Store, tolerated


def table_stage(name: str, root: Path, scale: str | None = None, tracked: bool = True) -> list[Path]:
    """Write a table as CSV, Markdown and LaTeX, its averages as JSON and its curves as CSV; returns the paths."""
    table, entries = read_table(name, scale)
    for run in (composed.run for entry in entries for composed in entry.runs):
        refuse_changed(run.dataset, run.source.own, paths(run, root).data)
    rows = rows_of(entries, root, read_yaml(PARAMS / "published.yaml"), table.columns)
    confidence = entries[0].runs[0].run.evaluation.bootstrap.confidence
    texts = {
        ".csv": to_csv(rows),
        ".md": to_markdown(table.title, rows, confidence),
        ".tex": to_latex(table.title, rows, confidence),
        "-curves.csv": curves_csv(entries, root),
    }
    files = [root / "results" / f"{name}{ending}" for ending in (*texts, ".json")]
    for path, text in zip(files, texts.values(), strict=False):
        write_text(path, text)
    write_json(files[-1], averages(rows, table_key(entries)))  # last: it says what the others are made of
    files[0].with_suffix(".stale.csv").unlink(missing_ok=True)
    if tracked:
        with tolerated():
            children = [keys(composed.run).train for entry in entries for composed in entry.runs]
            Store(root).log_table(name, table_key(entries), children, files)
    return files
