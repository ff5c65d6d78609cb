"""The ledger of fidelity: its document is the one generated, and what it says of parameters is so."""

import json
from typing import Any

import pytest

from rdfa.params import compose, flatten
from rdfa.reporting.fidelity import Discrepancy, Switch, read_ledger, to_markdown
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
    assert (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8") == to_markdown(LEDGER)


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


def test_the_column_of_measured_effects_is_there_only_where_one_was_measured() -> None:
    point = LEDGER[0]
    assert "measured effect" not in to_markdown([point])
    measured = point.switches[0].model_copy(update={"effect": "+1.0 mAP (results/fidelity.csv)"})
    text = to_markdown([Discrepancy(**(dict(point) | {"switches": (measured,)})), LEDGER[1]])
    assert "| +1.0 mAP (results/fidelity.csv) |" in text
    assert "| not yet |" in text
