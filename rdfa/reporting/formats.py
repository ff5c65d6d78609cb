"""A table's rows as CSV (every column, for programs) and as Markdown and LaTeX (for readers).

For readers, mean, spread and interval stand in one cell, what is the same in all rows is said once, and the runs'
folders are listed below, so that each number can be traced.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rdfa.files import not_a_formula

SAMPLE_NOTE = (
    "Scale `sample`: planted features, small models, few epochs. These numbers show that the pipeline works. They are "
    "not comparable with any published number; those are in `params/published.yaml`."
)
BEST_OF_TEST_NOTE = (
    "`best of test` is the largest average among the looks at the test split during the same training, as the released "
    "code reports: selected on the split that it is measured on. The headline is the last epoch's `average`."
)
SPREAD_NOTE = "± is the standard deviation over the seeds; `change` is paired, seed by seed."
ONE_SEED_NOTE = (
    "One seed: the intervals are of the choice of the test videos alone. How much a second training would differ is "
    "not in them, so that no change here can be told from noise."
)

Row = Mapping[str, Any]


class Apart(NamedTuple):
    """Rows of others that stand under a table, with columns of their own."""

    title: str
    rows: Sequence[Row]


_SAID_ONCE = ("data set", "scale", "features", "model", "seeds", "selection", "test looks")
_NOT_SHOWN = ("row", "runs", "std", "low", "high", "change std", "change low", "change high")
_EMPTY = ("", None)
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    c: f"\\{c}" for c in "&%$#_{}"
}


def to_csv(rows: Sequence[Row]) -> str:
    """Every column, numbers with two decimals."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _csv_cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def to_markdown(title: str, rows: Sequence[Row], confidence: float, apart: Apart | None = None) -> str:
    """One block per list of tIoUs; a dash where a row has no value.

    Args:
        confidence: of the intervals, in (0, 1).
        apart: what stands below, after the notes on the rows.
    """
    lines = [f"# {title}", ""]
    if any(row["scale"] == "sample" for row in rows):
        lines += [SAMPLE_NOTE, ""]
    if once := _said_once(rows):
        lines += ["; ".join(f"{name}: {value}" for name, value in once.items()) + ".", ""]
    for columns, members in _blocks(rows, once):
        lines += [*_markdown_block(columns, members), ""]
    for note in _notes(rows, confidence):
        lines += [note, ""]
    if apart is not None:
        lines += [_below(apart), "", *_markdown_block(tuple(apart.rows[0]), apart.rows), ""]
    lines += ["Runs (folders of `results/runs/`):", ""]
    lines += [f"- {row['row']}: {', '.join(f'`{run}`' for run in row['runs'].split())}" for row in rows]
    return "\n".join(lines) + "\n"


def to_latex(title: str, rows: Sequence[Row], confidence: float, apart: Apart | None = None) -> str:
    """A `table` for a document that loads booktabs; the runs' folders as comments."""
    once = _said_once(rows)
    parts, below = [], [] if apart is None else [(tuple(apart.rows[0]), list(apart.rows))]
    for columns, members in [*_blocks(rows, once), *below]:
        body = [" & ".join(_tex(_shown(row.get(name))) for name in columns) + r" \\" for row in members]
        alignment = "".join("l" if any(isinstance(row.get(name), str) for row in members) else "r" for name in columns)
        head = " & ".join(map(_tex, columns)) + r" \\"
        parts.append(
            [
                rf"\begin{{tabular}}{{{alignment}}}",
                r"\toprule",
                head,
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )
    said = "; ".join(f"{name}: {value}" for name, value in once.items())
    sample = [SAMPLE_NOTE] if any(row["scale"] == "sample" for row in rows) else []
    last = [] if apart is None else [_below(apart)]
    caption = " ".join(
        _tex(text.replace("`", "")) for text in [f"{title}.", *sample, f"{said}.", *_notes(rows, confidence), *last]
    )
    lines = [f"% {row['row']}: {row['runs']}" for row in rows]
    lines += [r"\begin{table}", r"\centering", r"\small"]
    lines += [line for index, part in enumerate(parts) for line in ([r"\medskip", ""] if index else []) + part]
    lines += [rf"\caption{{{caption}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _markdown_block(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    body = ["| " + " | ".join(_pipe(row.get(name)) for name in columns) + " |" for row in rows]
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *body]


def _below(apart: Apart) -> str:
    return f"Below: {apart.title}."


def _said_once(rows: Sequence[Row]) -> dict[str, Any]:
    """Columns with one value in all of several rows."""
    if len(rows) < 2:
        return {}
    return {name: rows[0][name] for name in _SAID_ONCE if rows[0][name] and all(r[name] == rows[0][name] for r in rows)}


def _blocks(rows: Sequence[Row], once: Mapping[str, Any]) -> list[tuple[tuple[str, ...], list[Row]]]:
    """Rows for readers by the tIoUs that they are measured at, with the columns that any of them has values in."""
    blocks: dict[tuple[str, ...], list[Row]] = {}
    for row in map(_joined, rows):
        tious = tuple(name for name in row if name.startswith("mAP@") and row[name] not in _EMPTY)
        blocks.setdefault(tious, []).append(row)
    elsewhere = {*once, *_NOT_SHOWN}
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in elsewhere]
    return [
        (tuple(name for name in names if any(row.get(name) not in _EMPTY for row in members)), members)
        for members in blocks.values()
    ]


def _joined(row: Row) -> dict[str, Any]:
    """Mean, spread and interval in one cell."""
    joined = dict(row)
    for name, prefix, sign in (("average", "", ""), ("change", "change ", "+")):
        if row[name] is not None:
            spread = "" if row[f"{prefix}std"] is None else f" ± {row[f'{prefix}std']:.2f}"
            low, high = row[f"{prefix}low"], row[f"{prefix}high"]
            joined[name] = f"{row[name]:{sign}.2f}{spread} [{low:{sign}.2f}, {high:{sign}.2f}]"
    return joined


def _notes(rows: Sequence[Row], confidence: float) -> list[str]:
    notes = ["mAP in per cent at each tIoU; `average` is their mean."]
    over = "the test videos and the seeds" if any(row["std"] is not None for row in rows) else "the test videos"
    notes.append(f"In brackets, the {confidence:.0%} interval of a bootstrap over {over}.")
    if any(row["std"] is not None for row in rows):
        notes.append(SPREAD_NOTE)
    if any(row["noise"] in ("within", "outside") for row in rows):
        notes.append(
            "`noise`: `within` if the interval of the change holds zero, so that it cannot be told from noise."
        )
    if any(row["std"] is None for row in rows):
        notes.append(ONE_SEED_NOTE)
    if any(row["best of test"] is not None for row in rows):
        notes.append(BEST_OF_TEST_NOTE)
    return notes


def _csv_cell(value: Any) -> str:
    return not_a_formula(value) if isinstance(value, str) else _cell(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _shown(value: Any) -> str:
    return "–" if value in _EMPTY else _cell(value)


def _pipe(value: Any) -> str:
    return _shown(value).replace("|", "\\|")


def _tex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text).replace("±", r"$\pm$")
