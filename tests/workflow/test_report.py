"""Figures and the report through Snakemake: what is made, what is set aside, what the one HTML file holds."""

import re
import shutil
from collections.abc import Iterator

import pytest

from rdfa.files import read_json
from tests.conftest import ROOT
from tests.reporting.pages import check_links
from tests.workflow.conftest import Clone

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("clone")]

FIGURES = "results/figures/table1"


@pytest.fixture(scope="module")
def drawn(clone: Clone) -> Iterator[Clone]:
    """The clone with the figures of its table 1."""
    clone.run("snakemake", "--cores", "2", FIGURES)
    yield clone
    shutil.rmtree(clone.root / "results" / "figures")
    shutil.rmtree(clone.root / "site", ignore_errors=True)
    (clone.root / "report.html").unlink(missing_ok=True)


def planned(clone: Clone, *arguments: str) -> dict[str, int]:
    """How often `snakemake` would run each rule for some targets."""
    done = clone.run("snakemake", "-n", *arguments)
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE)}


def test_a_figure_is_drawn_for_each_data_set_once(drawn: Clone) -> None:
    index = read_json(drawn.root / FIGURES / "index.json")
    files = {path.name for path in (drawn.root / FIGURES).glob("*.svg")}
    assert files == {figure["file"] for figure in index["figures"]}
    assert {"average-thumos14.svg", "cost-thumos14.svg", "per-class-activitynet.svg", "training-thumos14.svg"} <= files
    assert "average-activitynet.svg" not in files, "one row is nothing to compare"
    assert planned(drawn, FIGURES) == {}


def test_figures_do_not_survive_a_change_of_their_table_and_come_back_with_it(drawn: Clone) -> None:
    undo = drawn.edit("params/datasets/thumos14.yaml", "0.6, 0.7]", "0.6]")
    try:
        assert planned(drawn, FIGURES) == {"evaluate": 2, "table": 1, "figures": 1, "total": 4}
        assert not (drawn.root / FIGURES).exists()
    finally:
        undo()
    assert planned(drawn, FIGURES) == {}
    assert (drawn.root / FIGURES / "cost-thumos14.svg").exists()


def test_the_target_tables_is_every_table_whose_data_is_at_hand(drawn: Clone) -> None:
    file = drawn.root / "params" / "tables" / "table1.yaml"
    small = file.read_text()
    file.write_text((ROOT / "params" / "tables" / "table1.yaml").read_text())
    try:
        sample = planned(drawn, "tables")
        full = planned(drawn, "tables", "--config", "scale=full")
    finally:
        file.write_text(small)
    planted = [path.stem for path in file.parent.glob("*.yaml") if "\nscale: sample\n" in path.read_text()]
    assert sample["table"] == sample["figures"] == len(planted)
    assert "hapt" not in planted, "its data is real"
    assert full["table"] == full["figures"] == len(list(file.parent.glob("*.yaml")))
    assert planned(drawn, FIGURES) == {}, "what was set aside is back"


def test_the_report_is_made_without_network_and_says_what_it_is(drawn: Clone) -> None:
    dead = "http://127.0.0.1:9"
    drawn.run("snakemake", "--report", "report.html", FIGURES, HTTP_PROXY=dead, HTTPS_PROXY=dead)
    report = (drawn.root / "report.html").read_text(encoding="utf-8")
    for words in ("Table 1", "mAP against cost", "Training loss", "The table as CSV", "Sangyoun Lee", "Qiang Wang"):
        assert words in report, words
    assert "comparable with no published number" in report
    assert "scans included" in report, "captions come from the figures' index"
    assert "safe center" in report, "the style sheet that keeps heads of tall figures in sight"


def test_the_site_holds_the_table_and_its_runs(drawn: Clone) -> None:
    drawn.run("rdfa", "site")
    page = (drawn.root / "site" / "tables" / "table1.html").read_text()
    runs = [path.name for path in (drawn.root / "results" / "runs").iterdir()]
    assert check_links(drawn.root / "site") > len(runs)
    table = (drawn.root / "results" / "table1.md").read_text()
    for run in re.findall(r"[\w.-]+-s\d+-[0-9a-f]{8}", table):
        assert f'href="../runs/{run}/run.json"' in page
        assert (drawn.root / "site" / "runs" / run / "history.csv").exists()
