"""The ledger of fidelity: its document is the one generated, and what it says of parameters is so."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from rdfa.params import compose, flatten
from rdfa.reporting.fidelity import (
    MEASURED,
    Discrepancy,
    Switch,
    document,
    measured_effects,
    read_ledger,
    to_markdown,
)
from rdfa.reporting.grids import read_table
from tests.conftest import ROOT

PARAMS = ROOT / "params"
LEDGER = read_ledger(PARAMS)
SWITCHES = [
    pytest.param(switch, id=f"{point.number}-{switch.parameter}") for point in LEDGER for switch in point.switches
]


def values(variant: str, *overrides: str) -> dict[str, Any]:
    return flatten(
        compose(dataset="thumos14", model="rdfa", variant=variant, scale="full", overrides=overrides, folder=PARAMS).run
    )


def test_the_committed_document_is_the_one_made_from_the_data() -> None:
    assert (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8") == document(PARAMS, ROOT / MEASURED)


def test_every_numbered_discrepancy_is_there_once() -> None:
    assert [point.number for point in LEDGER if point.number is not None] == list(range(1, 23))


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_stated_defaults_are_those_of_the_composed_runs(switch: Switch) -> None:
    assert values("paper")[switch.parameter] == switch.defaults.paper
    assert values("released")[switch.parameter] == switch.defaults.released


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_named_parameter_takes_both_values_and_changes_nothing_else(switch: Switch) -> None:
    for variant, value in (("paper", switch.paper), ("released", switch.code)):
        before, after = values(variant), values(variant, f"{switch.parameter}={json.dumps(value)}")
        assert after[switch.parameter] == value
        assert {name for name in after if after[name] != before[name]} <= {switch.parameter}


def test_a_point_without_a_switch_says_what_is_done_instead() -> None:
    assert all(point.remark for point in LEDGER if not point.switches)


def test_every_row_that_a_switch_names_is_in_the_table_and_turns_that_switch_alone() -> None:
    _, entries = read_table("fidelity", folder=PARAMS)
    runs = {entry.row.shown: flatten(entry.runs[0].run) for entry in entries}
    against = {entry.row.shown: runs[entry.row.against or "paper"] for entry in entries}
    for point in LEDGER:
        for switch in point.switches:
            if switch.row is not None and not switch.row.startswith("looks of "):
                turned = {name for name, value in runs[switch.row].items() if value != against[switch.row][name]}
                assert turned - {"training.test_looks_from"} == {switch.parameter}


def test_effects_are_read_from_the_table_that_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "fidelity.csv"
    path.write_text("variant,average,change,change std,best of test\npaper,90.50,,,91.75\n1: sum,89.00,-1.50,0.25,\n")
    effects = measured_effects(path)
    assert effects == {"looks of paper": "+1.25", "1: sum": "-1.50 ± 0.25"}
    first = LEDGER[0]
    switch = first.switches[0].model_copy(update={"row": "1: sum"})
    text = to_markdown([Discrepancy(**(dict(first) | {"switches": (switch,)})), LEDGER[1]], effects)
    assert "| -1.50 ± 0.25 |" in text
    assert "| – |" in text


def test_each_row_was_measured_with_at_least_three_seeds() -> None:
    with (ROOT / MEASURED).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["variant"] for row in rows} == {entry.row.shown for entry in read_table("fidelity", folder=PARAMS)[1]}
    assert all(len(set(row["seeds"].split())) >= 3 and row["std"] for row in rows)
