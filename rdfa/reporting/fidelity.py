"""The ledger of fidelity: each point where paper and released code part, and our switch for it.

`params/fidelity.yaml` holds the data, `docs/fidelity.md` is made from it:

    python -c 'from rdfa.reporting.fidelity import *; print(to_markdown(read_ledger()), end="")' > docs/fidelity.md
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rdfa.errors import RdfaError
from rdfa.params import PARAMS, read_yaml
from rdfa.schema import Positive, Section

__all__ = ["Discrepancy", "Switch", "read_ledger", "to_markdown"]

_HEADING = """\
# Fidelity: paper, released code, and this project

<!-- Made from params/fidelity.yaml by rdfa/reporting/fidelity.py; edit there. A test compares. -->

Where the text of the paper (arXiv 2407.13078) and its released code (github.com/lsy0882/RDFA-S6 at c5caaea) part, or
where the code departs from what one would expect. The variant `paper` follows the text, `released` the code; every
switch can be set alone, for example `rdfa train hapt-rdfa-released-full-s0 --set model.block.gradients=official`.
Numbers are those of the notes on the papers, section 2.4; a dash marks points that are not in that list.
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
    effect: str | None = None
    """Measured effect and its source."""


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


def to_markdown(ledger: Sequence[Discrepancy]) -> str:
    """The ledger as a document: a table of the switches, then every point."""
    return "\n".join([_HEADING, "## Switches", "", *_table(ledger), "", "## Points", "", *_points(ledger)])


def _table(ledger: Sequence[Discrepancy]) -> Iterator[str]:
    header = ["#", "parameter", "as in the paper", "as in the code", "default in `paper`", "default in `released`"]
    measured = any(switch.effect for point in ledger for switch in point.switches)
    header += ["measured effect"] if measured else []
    yield _line(header)
    yield _line(["---"] * len(header))
    for point in ledger:
        for switch in point.switches:
            values = (switch.paper, switch.code, switch.defaults.paper, switch.defaults.released)
            cells = [_number(point), f"`{switch.parameter}`", *map(_value, values)]
            yield _line(cells + ([switch.effect or "not yet"] if measured else []))


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
