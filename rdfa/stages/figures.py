"""`rdfa figures TABLE`: the figures of a table, as SVG, with an index of titles, captions and alternative texts."""

import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path

import matplotlib.style

from rdfa.data.detections import read_detections
from rdfa.errors import RdfaError
from rdfa.files import write_json, write_text
from rdfa.locks import alone
from rdfa.reporting.figure_index import CAPTIONS, INDEX, TABLE_PAGE, figures_folder, figures_key
from rdfa.reporting.figures import STYLE, save_figure
from rdfa.reporting.grid_figures import draw
from rdfa.reporting.grid_results import by_data_set, read_results
from rdfa.reporting.grids import Entry, Table, made_of, read_table, table_key
from rdfa.reporting.pages import table_page
from rdfa.stages.logged import log_figures
from rdfa.stages.opened import ground_truth, read_manifest, refuse_other_data
from rdfa.tracking import Store, tolerated


def figures_stage(
    name: str, root: Path, scale: str | None = None, videos: Sequence[str] = (), tracked: bool = True
) -> Path:
    """Draw the figures of a table into `results/figures/<table>`; returns that folder.

    Args:
        name: of the table; its runs must be evaluated and the table written.
        videos: shown on the timeline, instead of those that its rule chooses.

    Raises:
        RdfaError: the table or what it is made of is missing; says which command makes it.
    """
    table, entries = read_table(name, scale)
    markdown = _current_table(name, root, table_key(entries), scale)
    with alone(name, root, "figures"):
        return _draw(name, table, entries, root, markdown, videos, tracked)


def _draw(
    name: str, table: Table, entries: list[Entry], root: Path, markdown: Path, videos: Sequence[str], tracked: bool
) -> Path:
    folder = figures_folder(name, root)
    for old in (folder / INDEX, *folder.glob("*.svg")):  # the index first: without it nothing passes as current
        old.unlink(missing_ok=True)
    shutil.rmtree(folder / CAPTIONS, ignore_errors=True)
    groups = by_data_set(entries)
    listed = []
    for dataset, own in groups.items():
        rows = read_results(own, root)
        first, where = rows[0].run, rows[0].where[0]
        refuse_other_data(first, where, read_manifest(first, where))
        truth = ground_truth(first, where)
        with matplotlib.style.context(["default", STYLE]):  # whatever the user's matplotlibrc says
            for drawing in draw(own, rows, truth, read_detections, videos):
                file = f"{drawing.name}{f'-{dataset}' if len(groups) > 1 else ''}.svg"
                save_figure(drawing.figure, folder / file)
                words = {"title": drawing.title, "caption": drawing.caption, "alt": drawing.alt}
                listed.append({"file": file, "data_set": dataset, **words})
    captions = {figure["file"].removesuffix(".svg"): figure["caption"] for figure in listed}
    captions[TABLE_PAGE.removesuffix(".html")] = f"{table.title}. Cells are explained below the table."
    for shown, caption in captions.items():
        write_text(folder / CAPTIONS / f"{shown}.html", f"<p>{escape(caption)}</p>\n")
    write_text(folder / TABLE_PAGE, table_page(markdown.read_text(encoding="utf-8"), table.title))
    scales = sorted({entry.runs[0].run.scale for entry in entries})
    planted = any(entry.runs[0].run.source.kind == "sample" for entry in entries)
    about = {"made_of": figures_key(table, entries), "table": name, "title": table.title}
    if tracked:
        with tolerated():
            log_figures(Store(root), name, markdown.with_suffix(".csv"), root)
    write_json(folder / INDEX, about | {"scales": scales, "planted_data": planted, "figures": listed})  # the seal
    return folder


def _current_table(name: str, root: Path, key: str, scale: str | None) -> Path:
    """The table as Markdown, made of the runs of now."""
    path = root / "results" / f"{name}.md"
    command = f"rdfa table {name}{f' --scale {scale}' if scale else ''}"
    if made_of(path.with_suffix(".json")) != key or not path.exists():
        raise RdfaError(f"{path}: not there, or not made of the runs of now; run: {command}")
    return path
