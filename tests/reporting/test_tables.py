"""Tables of several runs: means, spreads and paired changes, and what a table's file may say."""

import csv
import io
import json
import statistics
from pathlib import Path

import pytest

from rdfa.errors import RdfaError
from rdfa.files import write_json
from rdfa.identity import paths
from rdfa.reporting.grids import Entry, read_table
from rdfa.reporting.tables import rows_of, to_csv, to_markdown
from tests.conftest import ROOT

FOUND = {"paper": [0.90, 0.92, 0.97], "leaky": [0.91, 0.90, 0.98]}
TABLE = """
title: A table
scale: sample
seeds: [0, 1, 2]
params: {training: {epochs: 3, schedule_epochs: 4, warmup_epochs: 1}}
rows:
  - {dataset: thumos14, model: rdfa, variant: paper}
  - dataset: thumos14
    model: rdfa
    variant: paper
    label: leaky
    against: paper
    params: {model: {padding: leaky}, training: {epochs: 2}}
"""


def table(folder: Path, text: str) -> list[Entry]:
    """The entries of a table's file, among the project's own parameters."""
    params = folder / "params"
    if not params.exists():
        params.mkdir()
        for path in (ROOT / "params").iterdir():
            if path.name != "tables":
                (params / path.name).symlink_to(path)
        (params / "tables").mkdir()
    (params / "tables" / "some.yaml").write_text(text)
    return read_table("some", folder=params)[1]


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, object]]:
    entries = table(tmp_path, TABLE)
    for entry in entries:
        for composed, average in zip(entry.runs, FOUND[entry.row.shown], strict=True):
            where, tious = paths(composed.run, tmp_path), list(composed.run.evaluation.tious)
            where.folder.mkdir(parents=True)
            write_json(where.metrics, {"average_mAP": average, "tiou": tious, "mAP": [average] * len(tious)})
            write_json(where.folder / "run.json", {"parameters": 7, "epoch": 3, "test_looks": None})
    return rows_of(entries, tmp_path, {})


def test_a_row_has_mean_and_standard_deviation_over_its_seeds(rows: list[dict[str, object]]) -> None:
    for row, found in zip(rows, FOUND.values(), strict=True):
        assert row["average"] == pytest.approx(100 * statistics.fmean(found))
        assert row["std"] == pytest.approx(100 * statistics.stdev(found))


def test_a_change_is_paired_seed_by_seed(rows: list[dict[str, object]]) -> None:
    paired = [100 * (own - other) for own, other in zip(FOUND["leaky"], FOUND["paper"], strict=True)]
    assert rows[1]["against"] == "paper"
    assert rows[1]["change"] == pytest.approx(statistics.fmean(paired))
    assert rows[1]["change std"] == pytest.approx(statistics.stdev(paired))
    assert rows[0]["change"] is None


def test_csv_keeps_numbers_apart_and_markdown_joins_them(rows: list[dict[str, object]]) -> None:
    (_, leaky) = csv.DictReader(io.StringIO(to_csv(rows)))
    assert (leaky["average"], leaky["std"], leaky["change"]) == ("93.00", "4.36", "0.00")
    text = to_markdown("A table", rows)
    assert "93.00 ± 4.36" in text
    assert "0.00 ± 1.73" in text
    assert "paired" in text


def test_a_row_s_parameters_come_after_the_table_s(tmp_path: Path) -> None:
    plain, leaky = (entry.runs[0].run for entry in table(tmp_path, TABLE))
    assert (plain.training.epochs, plain.training.schedule_epochs) == (3, 4)
    assert (leaky.training.epochs, leaky.training.schedule_epochs) == (2, 4)
    assert (plain.model.padding, leaky.model.padding) == ("masked", "leaky")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("against: paper", "against: papr", "compared with 'papr', which no row of thumos14 is"),
        ("label: leaky", "label: paper", "two rows of thumos14 are called 'paper'"),
    ],
)
def test_a_table_whose_rows_do_not_fit_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(RdfaError, match=message):
        table(tmp_path, TABLE.replace(old, new))


def test_missing_metrics_name_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(RdfaError, match="rdfa evaluate thumos14-rdfa-paper-sample-s0"):
        rows_of(table(tmp_path, TABLE), tmp_path, json.loads("{}"))
