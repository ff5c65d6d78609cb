"""`rdfa site`: tables, figures, records and documents as static pages that need no server and no script."""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import rdfa
from rdfa.errors import RdfaError
from rdfa.files import read_json, write_text
from rdfa.identity import HISTORY, LOG, PARAMS_YAML, RUN_JSON, paths
from rdfa.provenance import provenance
from rdfa.reporting.figure_index import INDEX, figures_folder, figures_key, figures_made_of, shown_names
from rdfa.reporting.formats import SAMPLE_NOTE
from rdfa.reporting.grids import Entry, Table, read_table
from rdfa.reporting.pages import inline, page, rendered, template_text

_MARK = ".rdfa-site"
"""Stands in a folder that this stage has made, and may therefore replace."""
_PICTURES = {".png", ".svg"}
_WORDS = {"title", "caption", "alt", "data_set"}
_ENDINGS = {
    ".csv": "CSV",
    ".tex": "LaTeX",
    ".md": "Markdown",
    ".json": "averages (JSON)",
    "-curves.csv": "curves (CSV)",
}


@dataclass(frozen=True, kw_only=True)
class _Made:
    """A table whose figures are there."""

    name: str
    label: str
    table: Table
    entries: list[Entry]
    index: dict[str, Any]


def site_stage(names: Sequence[str], root: Path, out: Path, scale: str | None = None) -> Path:
    """Write the pages into a folder, replacing an older site as a whole; returns the first page.

    Args:
        names: tables; without, all whose figures are made of the runs of now.
        out: folder that is not there yet, or an older site.

    Raises:
        RdfaError: there is no table to show, figures of one are missing or stale, `out` is another's folder.
    """
    if out.exists() and not (out / _MARK).exists() and any(out.iterdir()):
        raise RdfaError(f"{out}: is there and is not a site of rdfa; choose another folder with --out")
    tables = _tables(names, root, scale)
    documents = sorted((root / "docs").rglob("*.md"))
    building = out.with_name(f".{out.name}.part")
    shutil.rmtree(building, ignore_errors=True)
    menu = [(made.name, made.label) for made in tables]
    shared = {"menu": menu, "version": rdfa.__version__, "commit": (provenance()["git_commit"] or "")[:12]}
    write_text(building / _MARK, "")
    write_text(building / "style.css", template_text("style.css"))
    for made in tables:
        _write_table(building, made, root, shared)
    labels = [_write_document(building, path, documents, root / "docs", shared) for path in documents]
    for picture in (path for path in (root / "docs").rglob("*") if path.suffix in _PICTURES):
        _copy(picture, building / "docs" / picture.parent.relative_to(root / "docs"))
    write_text(building / "index.html", _index(tables, labels, root, shared))
    if out.exists():
        shutil.rmtree(out)
    building.replace(out)
    return out / "index.html"


def _tables(names: Sequence[str], root: Path, scale: str | None) -> list[_Made]:
    found = []
    known = shown_names()
    for name in names:
        if name not in known:
            raise RdfaError(f"{name!r}: no file of params/tables is called so, nor a grid on another data set")
    for name, label in known.items():
        folder = figures_folder(name, root)
        if (names and name not in names) or (not names and figures_made_of(folder) is None):
            continue
        table, entries = read_table(name, scale)
        if figures_made_of(folder) == figures_key(table, entries):
            index = _read_index(folder / INDEX)
            found.append(_Made(name=name, label=label, table=table, entries=entries, index=index))
        elif names:
            raise RdfaError(f"{folder}: no figures of the runs of now; run: rdfa figures {name}")
    if not found:
        raise RdfaError(f"{figures_folder('TABLE', root)}: no table has figures; run: snakemake --cores all tables")
    return found


def _read_index(path: Path) -> dict[str, Any]:
    """An index of figures; results may come from elsewhere, so it must not name files outside its folder."""
    index = dict(read_json(path))
    for figure in index.get("figures", ()):
        file = figure.get("file") if isinstance(figure, dict) else None
        if not isinstance(file, str) or not re.fullmatch(r"[\w.-]+\.svg", file) or _WORDS - figure.keys():
            raise RdfaError(f"{path}: {figure!r} is not a figure beside it; run: rdfa figures {path.parent.name}")
    return index


def _write_table(site: Path, made: _Made, root: Path, shared: dict[str, Any]) -> None:
    results, folder = root / "results", figures_folder(made.name, root)
    markdown = (results / f"{made.name}.md").read_text(encoding="utf-8")
    files = []
    for ending, what in _ENDINGS.items():
        if (results / f"{made.name}{ending}").exists():
            _copy(results / f"{made.name}{ending}", site / "files")
            files.append((f"{made.name}{ending}", what))
    for figure in made.index["figures"]:
        _copy(folder / figure["file"], site / "figures" / made.name)
    planted = made.index["planted_data"]
    text = page(
        "table.html",
        **shared,
        title=made.table.title,
        up="../",
        current=made.name,
        notice=inline(SAMPLE_NOTE) if planted else None,
        body=rendered(markdown.replace(SAMPLE_NOTE, "") if planted else markdown, _web_only),
        figures=made.index["figures"],
        several=len({figure["data_set"] for figure in made.index["figures"]}) > 1,
        files=files,
        runs=_runs(made.entries, root, site / "runs"),
    )
    write_text(site / "tables" / f"{made.name}.html", text)


def _runs(entries: Sequence[Entry], root: Path, target: Path) -> list[tuple[str, str, list[str]]]:
    """Copy the runs' records (not their weights and detections); label, run and files of each."""
    listed = []
    for entry in entries:
        for composed in entry.runs:
            where = paths(composed.run, root)
            records = [where.metrics, *(where.folder / name for name in (RUN_JSON, PARAMS_YAML, HISTORY, LOG))]
            there = [path for path in records if path.exists()]
            for path in there:
                _copy(path, target / where.folder.name)
            listed.append((f"{composed.run.dataset}, {entry.row.shown}", where.folder.name, [p.name for p in there]))
    return listed


def _write_document(
    site: Path, path: Path, documents: Sequence[Path], folder: Path, shared: dict[str, Any]
) -> tuple[str, str]:
    """A page of the documentation; returns its place below `docs/` and its title."""

    def link(target: str) -> str | None:
        file, hash_sign, anchor = target.partition("#")
        if not file or _web_only(target):
            return target
        if (path.parent / file).resolve() in {document.resolve() for document in documents}:
            return f"{file.removesuffix('.md')}.html{hash_sign}{anchor}"
        return None

    place = path.relative_to(folder).with_suffix(".html")
    markdown = path.read_text(encoding="utf-8")
    title = next((line.removeprefix("# ") for line in markdown.splitlines() if line.startswith("# ")), place.stem)
    up = "../" * len(place.parts)
    body = rendered(markdown, link)
    write_text(site / "docs" / place, page("document.html", **shared, title=title, up=up, current=None, body=body))
    return place.as_posix(), title


def _index(tables: Sequence[_Made], documents: Sequence[tuple[str, str]], root: Path, shared: dict[str, Any]) -> str:
    shown = [
        {
            "name": made.name,
            "label": made.label,
            "title": made.table.title,
            "data_sets": list(dict.fromkeys(entry.runs[0].run.dataset for entry in made.entries)),
            "scales": made.index["scales"],
            "runs": [composed for entry in made.entries for composed in entry.runs],
        }
        for made in tables
    ]
    return page(
        "index.html",
        **shared,
        title="Results",
        up="",
        current=None,
        tables=shown,
        planted=[made.label for made in tables if made.index["planted_data"]],
        notice=inline(SAMPLE_NOTE),
        documents=documents,
        citations=_citations(root / "CITATION.cff"),
    )


def _citations(path: Path) -> list[str]:
    """The papers and this software, as `CITATION.cff` has them."""
    if not path.exists():
        return []
    cited = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [_citation(each) for each in (*cited.get("references", ()), cited)]


def _citation(each: dict[str, Any]) -> str:
    people = [
        person.get("name") or f"{person.get('given-names', '')} {person.get('family-names', '')}".strip()
        for person in each["authors"]
    ]
    place = each.get("notes") or each.get("collection-title") or f"version {each.get('version', rdfa.__version__)}"
    return f"{', '.join(people)}: {each['title']}. {place}{', ' + str(each['year']) if 'year' in each else ''}."


def _web_only(target: str) -> str | None:
    return target if target.startswith(("https://", "http://")) else None


def _copy(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / os.path.basename(path))
