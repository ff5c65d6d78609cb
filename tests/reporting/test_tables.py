"""Tables of several runs: means, spreads and paired changes, and what a table's file may say."""

import csv
import io
import json
import statistics
from pathlib import Path

import pytest

from rdfa.errors import RdfaError
from rdfa.models.cost import costs
from rdfa.params import compose
from rdfa.reporting.formats import to_csv, to_latex, to_markdown
from rdfa.reporting.grids import Entry, elsewhere, read_table
from rdfa.reporting.tables import rows_of
from rdfa.schema import Run
from tests.conftest import ROOT
from tests.reporting.runs import finish

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
            finish(tmp_path, composed, average)
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
    text = to_markdown("A table", rows, 0.95)
    assert f"93.00 ± 4.36 [{leaky['low']}, {leaky['high']}]" in text
    assert "+0.00 ± 1.73 [" in text
    assert "paired" in text
    assert "95% interval" in text


def test_what_all_rows_share_is_said_once_and_each_row_names_its_runs(rows: list[dict[str, object]]) -> None:
    text = to_markdown("A table", rows, 0.95)
    assert "data set: thumos14; scale: sample" in text
    assert text.count("planted (sample)") == 1
    for row in rows:
        for run in str(row["runs"]).split():
            assert f"`{run}`" in text.split("Runs (folders")[1]


def test_latex_escapes_what_labels_may_hold_and_keeps_the_notice_on_sample_data(rows: list[dict[str, object]]) -> None:
    rows[1]["variant"] = r"100 % of {a_b} & c\d #1 ~ ^"
    text = to_latex("Title & more", rows, 0.95)
    assert r"100 \% of \{a\_b\} \& c\textbackslash{}d \#1 \textasciitilde{} \textasciicircum{}" in text
    assert r"Title \& more." in text
    assert "planted features" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") >= 1
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    for part in (line.replace(r"\&", "") for line in body):
        assert part.count("&") in {line.replace(r"\&", "").count("&") for line in body}
    for row in rows:
        assert f"% {row['row']}: {row['runs']}" in text


def test_costs_of_the_trainings_stand_beside_the_numbers(rows: list[dict[str, object]]) -> None:
    for row in rows:
        assert row["CPU s per step"] == pytest.approx(0.25)
        assert row["peak MiB"] == 300
        assert row["parameters"] == 7
    composed = compose(dataset="thumos14", model="rdfa", variant="paper", scale="sample")
    assert rows[0]["G MACs"] == pytest.approx(costs(composed.run)[""].macs / 1e9)


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


GRID = """
title: A grid
dataset: thumos14
scale: sample
seeds: [0]
datasets:
  hapt: {scale: reduced, seeds: [0, 1], params: {training: {epochs: 5}}}
rows:
  - {model: rdfa, variant: paper}
  - {model: rdfa, variant: paper, label: once, against: paper, params: {model: {stem: {recurrence: 1}}}}
"""


def test_a_grid_is_there_for_every_data_set(tmp_path: Path) -> None:
    assert {(run.dataset, run.scale) for entry in table(tmp_path, GRID) for run in runs(entry)} == {
        ("thumos14", "sample")
    }
    folder = tmp_path / "params"
    assert set(elsewhere(folder)) == {f"{path.stem}_some" for path in (folder / "datasets").glob("*.yaml")} - {
        "thumos14_some"
    }
    grid, entries = read_table("hapt_some", folder=folder)
    assert [entry.row.shown for entry in entries] == ["paper", "once"]
    assert [(run.dataset, run.scale, run.seed, run.training.epochs) for run in runs(entries[1])] == [
        ("hapt", "reduced", 0, 5),
        ("hapt", "reduced", 1, 5),
    ]
    assert "hapt" in grid.title
    assert "reduced" in grid.title
    (hacs, _) = read_table("hacs_some", folder=folder)[1]
    assert [(run.dataset, run.scale, run.seed) for run in runs(hacs)] == [("hacs", "sample", 0)]
    (hacs, _) = read_table("hacs_some", scale="full", folder=folder)[1]
    assert [run.scale for run in runs(hacs)] == ["full"]


def test_a_number_of_seeds_is_the_first_so_many(tmp_path: Path) -> None:
    table(tmp_path, GRID.replace("seeds: [0]", "seeds: 3").replace("seeds: [0, 1]", "seeds: 2"))
    for name, seeds in (("some", [0, 1, 2]), ("hapt_some", [0, 1]), ("hacs_some", [0, 1, 2])):
        for entry in read_table(name, folder=tmp_path / "params")[1]:
            assert [run.seed for run in runs(entry)] == seeds, name
    assert read_table("some", folder=tmp_path / "params")[0].seeds == (0, 1, 2)


@pytest.mark.parametrize("wrong", ["0", "-1", "101", "true", "1.5", "[]", "[3, -1]"])
def test_seeds_that_are_neither_a_number_of_them_nor_a_list_are_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(RdfaError, match=r"some\.yaml: seeds"):
        table(tmp_path, GRID.replace("seeds: [0]", f"seeds: {wrong}"))


def runs(entry: Entry) -> list[Run]:
    return [composed.run for composed in entry.runs]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dataset: thumos14\n", "", "a row names no data set"),
        ("{model: rdfa, variant: paper}", "{dataset: hapt, model: rdfa, variant: paper}", "names one of its own"),
        ("hapt: {scale: reduced,", "hapt: {scales: reduced,", "datasets.hapt.scales"),
    ],
)
def test_a_grid_that_leaves_its_data_set_open_or_names_two_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GRID
    with pytest.raises(RdfaError, match=message):
        table(tmp_path, GRID.replace(old, new))


def test_no_file_of_a_table_is_taken_for_another_table_s_grid(tmp_path: Path) -> None:
    table(tmp_path, GRID)
    folder = tmp_path / "params"
    (folder / "tables" / "hapt_some.yaml").write_text(GRID.replace("seeds: [0]", "seeds: [7]"))
    assert "hapt_some" not in elsewhere(folder)
    assert runs(read_table("hapt_some", folder=folder)[1][0])[0].seed == 7
    with pytest.raises(RdfaError, match="no such file"):
        read_table("hapt_none", folder=folder)
