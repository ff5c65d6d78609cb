"""What a person sees in a browser: MLflow's pages of a table, and Snakemake's report. Found by visible names.

RDFA_SCREENSHOTS=docs/screenshots saves pictures of what the tests see; RDFA_SCREENSHOTS_OF=CHECKOUT:TABLE takes them of
another checkout's table (docs/mlflow.md has both).
"""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from rdfa.files import read_json
from tests.workflow.chromium import Page, chromium, mlflow_ui
from tests.workflow.conftest import Clone

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.xdist_group("clone")]

FIGURE = """<svg xmlns="http://www.w3.org/2000/svg" width="300" height="100">
<rect width="300" height="100" fill="#ddd"/><text x="20" y="55">A figure that was drawn</text></svg>"""


@dataclass(frozen=True)
class Shown:
    """A checkout with a written table."""

    clone: Clone
    table: str

    @property
    def runs(self) -> list[str]:
        """The names of the table's runs, in its order."""
        lines = (self.clone.root / "results" / f"{self.table}-curves.csv").read_text().splitlines()
        several = len(read_json(self.clone.root / "results" / f"{self.table}.json")) > 2  # made_of, and a data set each
        names = [column.rpartition(" s") for column in lines[0].split(",")[1:]]
        return [f"{row if several else row.partition(' ')[2]}, seed {seed}" for row, _, seed in names]

    @property
    def digests(self) -> set[str]:
        """The data's, as much of them as MLflow shows."""
        records = (self.clone.root / "results" / "runs").glob("*/run.json")
        return {read_json(record)["data_digest"][:36] for record in records}

    @property
    def figure(self) -> str:
        """The file of a figure; one is put there where the workflow drew none."""
        folder = self.clone.root / "results" / "figures" / self.table
        if not list(folder.glob("*.svg")):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "drawn.svg").write_text(FIGURE)
        preferred = folder / "recurrence.svg"
        return preferred.name if preferred.exists() else sorted(folder.glob("*.svg"))[0].name


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with chromium(tmp_path) as opened:
        yield opened


@pytest.fixture
def shown(page: Page, request: pytest.FixtureRequest) -> Shown:
    """The small table of the tests, unless RDFA_SCREENSHOTS_OF names another."""
    checkout, _, table = os.environ.get("RDFA_SCREENSHOTS_OF", "").rpartition(":")
    clone = Clone(Path(checkout)) if checkout else request.getfixturevalue("clone")
    return Shown(clone, table or "table1")


def test_mlflow_shows_a_table_its_runs_their_curves_figures_and_the_best_model(
    page: Page, shown: Shown, tmp_path: Path
) -> None:
    store, figure = f"sqlite:///{tmp_path}/store.db", shown.figure
    shown.clone.run("rdfa", "import-runs", shown.table, MLFLOW_TRACKING_URI=store)
    with mlflow_ui(shown.clone, store, tmp_path / "server.log") as address:
        page.open(f"{address}/#/experiments")
        page.click("Model training")
        page.click_css("[data-component-id='mlflow.assistant.chat_panel.close']")
        page.click(f"rdfa-{shown.table}")
        see_the_table(page, shown)
        see_the_curves(page, shown)
        see_a_run_and_its_training(page, shown)
        see_the_figure(page, shown, figure)
        see_the_best_model(page, shown, address)


def see_the_table(page: Page, shown: Shown) -> None:
    page.see(shown.table)
    page.click_css("[data-component-id*='runnamecellrenderer']")  # the + beside the name
    for name in shown.runs:
        page.see(name)
    page.click("Columns")
    for column in ("Source", "Models", "mAP_average", "parameters", "peak_memory_mib"):
        page.click_css(f"[title='{column}']")
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.see("mAP_average")  # as a column
    page.picture("mlflow-table")


def see_the_curves(page: Page, shown: Shown) -> None:
    page.click_css("label:has([value='CHART'])")
    page.see("loss")
    page.wait("a curve for each run", lambda: page.count(".scatterlayer .trace .js-line") >= len(shown.runs))
    page.picture("mlflow-curves")


def see_a_run_and_its_training(page: Page, shown: Shown) -> None:
    page.click(shown.runs[0])
    page.see("Parent run")
    page.see("mAP_average")
    page.wait("the digest of the data", lambda: any(f"({each}" in page.text for each in shown.digests))
    page.picture("mlflow-run")
    page.click("Model metrics")
    page.see("loss")
    page.click("Overview")
    page.click("the training run")
    page.newest_tab()
    page.click("Artifacts")
    page.see_part("detections-")
    page.first_tab()


def see_the_figure(page: Page, shown: Shown, figure: str) -> None:
    page.click(shown.table)  # the parent
    page.see_part("average mAP, %")
    page.click("Artifacts")
    page.see(f"{shown.table}.csv")
    page.click("figures")
    page.click(figure)
    page.wait("the figure", lambda: page.driver.execute_script(LOADED))
    page.picture("mlflow-figure")


LOADED = "return [...document.querySelectorAll('img')].some(i => i.src.startsWith('blob:') && i.naturalWidth > 100)"


def see_the_best_model(page: Page, shown: Shown, address: str) -> None:
    page.open(f"{address}/#/models/rdfa-{shown.table}")
    page.see_part("best")
    page.picture("mlflow-model")


def test_the_report_shows_a_table_and_its_figures_by_their_names(page: Page, clone: Clone) -> None:
    clone.run("snakemake", "--cores", "2", "results/figures/table1")
    clone.run("snakemake", "--report", "report.html", "results/figures/table1")
    report = (clone.root / "report.html").as_uri()
    page.open(report)
    page.click("Results")
    page.click("Table 1")
    page.see("The table as CSV")
    figures = read_json(clone.root / "results" / "figures" / "table1" / "index.json")["figures"]
    for figure in figures:
        page.see(figure["title"])
    page.picture("report")
    see_the_table_in_the_report(page, clone)
    page.click_beside(figures[0]["title"])
    page.wait("the figure", lambda: page.driver.execute_script(DRAWN))
    page.open(report)
    page.click("Statistics")
    page.wait("the runtimes", lambda: page.shown("#runtimes canvas, #runtimes svg"))
    page.wait("the timeline", lambda: page.shown("#timeline canvas, #timeline svg"))
    (clone.root / "report.html").unlink()


DRAWN = "return [...document.querySelectorAll('img')].some(i => i.src.includes('image/svg') && i.naturalWidth > 100)"


def see_the_table_in_the_report(page: Page, clone: Clone) -> None:
    """Every average of it, behind the eye beside its name."""
    page.click_beside("The table")
    page.driver.switch_to.frame(page.wait("the table", lambda: page.shown("iframe")))
    with (clone.root / "results" / "table1.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            page.see_part(row["average"])
    page.driver.switch_to.default_content()
