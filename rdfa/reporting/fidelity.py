"""The ledger of fidelity: each point where paper and released code part, and our switch for it.

`params/fidelity.yaml` holds the data and `docs/measured/fidelity.csv`, a copy of results/hapt_fidelity.csv, what was
measured. `docs/fidelity.md` is made from both:

    python -c 'from rdfa.reporting.fidelity import *; print(document(), end="")' > docs/fidelity.md
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rdfa.errors import RdfaError
from rdfa.params import PARAMS, read_yaml
from rdfa.schema import Positive, Section

__all__ = ["Discrepancy", "Switch", "document", "measured_effects", "read_ledger", "to_markdown"]

MEASURED = Path("docs/measured/fidelity.csv")
"""What results/hapt_fidelity.csv held when it was last made."""

_HEADING = """\
# Fidelity: paper, released code, and this project

<!-- Made from params/fidelity.yaml by rdfa/reporting/fidelity.py; edit there. A test compares. -->

Where the text of the paper (arXiv 2407.13078) and its released code (github.com/lsy0882/RDFA-S6 at c5caaea) part, or
where the code departs from what one would expect. The variant `paper` follows the text, `released` the code; every
switch can be set alone, for example `rdfa train hapt-rdfa-released-full-s0 --set model.block.gradients=official`.
Numbers are those of the notes on the papers, section 2.4; a dash marks points that are not in that list.
"""


_EFFECT = """\
The measured effect is the change of the average mAP (tIoU .3:.1:.7, in points) when this switch alone is turned in the
variant `paper` to the other side (points 2 and 8: in `paper` with what they need, a scan per kernel and for 8 also the
shared B and C); the second number is the standard deviation of the change over three seeds. HAPT, real sensor
recordings, at half the width and a quarter of the epochs of its own table: it says something about these small models,
not about the paper's. [measured/fidelity.csv](measured/fidelity.csv) has all rows, with the keys of the runs;
[measured/README.md](measured/README.md) says how they were made. A dash: not measured.
"""


class Defaults(Section):
    """What the two variants use, at full scale on THUMOS-14."""

    paper: Any
    released: Any


class Switch(Section):
    """A parameter that takes either side of a discrepancy."""

    parameter: str
    """Dotted name in `rdfa.schema.Run`."""
    paper: Any
    """Its value for the paper's text, or for what one would expect."""
    code: Any
    """Its value for what the released code does."""
    defaults: Defaults
    row: str | None = None
    """The row of params/tables/fidelity.yaml, by its label, that turns it."""


class Discrepancy(Section):
    """One point of the ledger."""

    number: Positive | None
    topic: str
    paper: str
    code: str
    switches: tuple[Switch, ...]
    """Empty where nothing can be switched; `remark` then says what we do."""
    remark: str | None


class _Ledger(Section):
    discrepancies: tuple[Discrepancy, ...]


def read_ledger(folder: Path = PARAMS) -> tuple[Discrepancy, ...]:
    """The points of `fidelity.yaml` in a folder of parameters.

    Raises:
        RdfaError: the file is not valid; names the place.
    """
    path = folder / "fidelity.yaml"
    try:
        return _Ledger.model_validate_json(json.dumps(read_yaml(path))).discrepancies
    except ValidationError as error:
        detail = error.errors()[0]
        raise RdfaError(f"{path}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}") from error


def document(folder: Path = PARAMS, measured: Path = MEASURED) -> str:
    """The whole of docs/fidelity.md."""
    return to_markdown(read_ledger(folder), measured_effects(measured))


def measured_effects(path: Path) -> dict[str, str]:
    """What each row of a fidelity table changed, by its label: mean and standard deviation; and what looks gained."""
    effects = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["change"]:
                effects[row["variant"]] = f"{float(row['change']):+.2f} ± {float(row['change std']):.2f}"
            if row["best of test"]:
                gain = float(row["best of test"]) - float(row["average"])
                effects[f"looks of {row['variant']}"] = f"{gain:+.2f}"
    return effects


def to_markdown(ledger: Sequence[Discrepancy], effects: Mapping[str, str]) -> str:
    """The ledger as a document: a table of the switches, then every point.

    Args:
        effects: what turning a switch changed, by the label of its row (`measured_effects`).
    """
    return "\n".join(
        [_HEADING, "## Switches", "", _EFFECT, *_table(ledger, effects), "", "## Points", "", *_points(ledger)]
    )


def _table(ledger: Sequence[Discrepancy], effects: Mapping[str, str]) -> Iterator[str]:
    header = ["#", "parameter", "as in the paper", "as in the code", "default in `paper`", "default in `released`"]
    header.append("measured effect")
    yield _line(header)
    yield _line(["---"] * len(header))
    for point in ledger:
        for switch in point.switches:
            values = (switch.paper, switch.code, switch.defaults.paper, switch.defaults.released)
            cells = [_number(point), f"`{switch.parameter}`", *map(_value, values)]
            yield _line([*cells, effects.get(switch.row or "", "–")])


def _points(ledger: Sequence[Discrepancy]) -> Iterator[str]:
    for point in ledger:
        yield f"### {_number(point)} {point.topic}"
        yield ""
        yield f"- Paper: {point.paper}"
        yield f"- Code: {point.code}"
        if point.switches:
            yield "- Switch: " + ", ".join(f"`{switch.parameter}`" for switch in point.switches)
        if point.remark:
            yield f"- {point.remark}"
        yield ""


def _number(point: Discrepancy) -> str:
    return "–" if point.number is None else str(point.number)


def _value(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
