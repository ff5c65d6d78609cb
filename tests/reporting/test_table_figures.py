"""The figures of a table: which there are, what stands in them, and that they do not survive what they show."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rdfa.data.detections import read_detections
from rdfa.errors import RdfaError
from rdfa.files import read_json, write_json
from rdfa.identity import paths
from rdfa.reporting.accuracy_figures import average_figure, cost_figure, recurrence_figure, recurs
from rdfa.reporting.figure_index import figures_key, keep_only_current_figures, shown_names
from rdfa.reporting.grid_results import RowResult, read_results
from rdfa.reporting.grids import read_table
from rdfa.reporting.truth_timeline import choose_videos, truth_timeline
from rdfa.stages.figures import figures_stage
from rdfa.stages.site import site_stage
from tests.conftest import ROOT
from tests.reporting.pages import Page, check_links, pages
from tests.reporting.scenes import (
    CLASSES,
    RECURRENCE,
    SEEDS,
    ground_truth,
    proposals_table,
    recurrence_table,
    write_project,
    write_runs,
)

EVERYWHERE = {
    "per-class",
    "training",
    "precision-recall",
    "timeline",
    "false-positives",
    "sensitivity",
    "false-negatives",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project folder, the working directory, with a table of several recurrences, its figures and a site."""
    root = tmp_path_factory.mktemp("project")
    write_project(root, {"table4": recurrence_table()})
    shutil.copy(ROOT / "CITATION.cff", root)
    shutil.copytree(ROOT / "docs", root / "docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_runs(root, "table4", {label: misses for label, (_, misses) in RECURRENCE.items()})
        figures_stage("table4", root, tracked=False)
        site_stage([], root, root / "site")
        yield root


@pytest.fixture(scope="module")
def rows(made: Path) -> tuple[RowResult, ...]:
    return read_results(read_table("table4", folder=made / "params")[1], made)


def text_of(svg: Path) -> str:
    """All words of a picture; there are some only if text is kept as text."""
    return " ".join("".join(element.itertext()) for element in ET.parse(svg).iter("{http://www.w3.org/2000/svg}text"))


def test_figures_follow_from_the_rows(made: Path) -> None:
    files = {path.stem for path in (made / "results/figures/table4").glob("*.svg")}
    assert files == EVERYWHERE | {"average", "cost", "recurrence"}
    entries = read_table("table4", folder=made / "params")[1]
    assert recurs(entries)
    assert not recurs(entries[:1])
    assert not recurs(read_table("table5", folder=ROOT / "params")[1])


def test_every_figure_says_data_set_and_scale_and_that_its_data_is_planted(made: Path) -> None:
    for path in (made / "results/figures/table4").glob("*.svg"):
        words = text_of(path)
        assert "thumos14, scale sample" in words, path
        assert "planted sample data" in words, path


def test_the_recurrence_figure_has_the_table_s_numbers_and_marks_untied_controls(rows: tuple[RowResult, ...]) -> None:
    axes = recurrence_figure(rows).figure.axes[0]
    shared, control = axes.containers
    assert shared[0].get_xdata().tolist() == [1, 2, 4]  # type: ignore[union-attr]
    assert shared[0].get_ydata() == pytest.approx([row.mean for row in rows[:3]])  # type: ignore[union-attr]
    assert control[0].get_xdata().tolist() == [2]  # type: ignore[union-attr]
    assert control[0].get_ydata() == pytest.approx([rows[3].mean])  # type: ignore[union-attr]
    assert "untied" in str(control.get_label())
    assert control[0].get_markerfacecolor() == "white" != shared[0].get_markerfacecolor()  # type: ignore[union-attr]


def test_error_bars_are_standard_deviations_over_the_seeds(made: Path, rows: tuple[RowResult, ...]) -> None:
    for row, bars in zip(rows, average_figure(rows).figure.axes[0].containers, strict=True):
        found = [100 * read_json(paths(run, made).metrics)["average_mAP"] for run in row.runs]
        assert len(found) == len(SEEDS)
        (segment,) = bars[2][0].get_segments()  # type: ignore[index]
        assert segment[1, 0] - segment[0, 0] == pytest.approx(2 * np.std(found, ddof=1))


def test_rows_can_be_told_apart_without_colour(rows: tuple[RowResult, ...]) -> None:
    many = [*rows, *rows, *rows, *rows]
    axes = cost_figure(many).figure.axes[0]
    looks = {(bars[0].get_marker(), bars[0].get_markerfacecolor()) for bars in axes.containers}  # type: ignore[index]
    assert len(looks) == len(many)


def test_the_index_has_words_for_every_figure(made: Path) -> None:
    index = read_json(made / "results/figures/table4/index.json")
    assert index["planted_data"] is True
    assert {figure["file"] for figure in index["figures"]} == {
        path.name for path in (made / "results/figures/table4").glob("*.svg")
    }
    for figure in index["figures"]:
        assert re.search(r"\d", figure["alt"]), "numbers for those who do not see the figure"
        assert figure["caption"].endswith(".")
    (timeline,) = (figure for figure in index["figures"] if figure["file"] == "timeline.svg")
    assert "median and of worst AP" in timeline["caption"]


def test_videos_that_are_named_are_those_on_the_timeline(made: Path, rows: tuple[RowResult, ...]) -> None:
    truth, run = ground_truth(), rows[0].run
    detections = read_detections(rows[0].where[0].detections)
    tious, protocol = run.evaluation.tious, run.evaluation.protocol
    named = choose_videos(truth, detections, tious, protocol, ["video_test_0000003"])
    figure = truth_timeline(run, named, {"r = 1": detections}, "as asked for", "r = 1").figure
    assert [axes.get_title(loc="left").split(":")[0] for axes in figure.axes] == ["video_test_0000003"]
    with pytest.raises(RdfaError, match="'nobody': no video of the test split"):
        choose_videos(truth, detections, tious, protocol, ["nobody"])


def test_without_names_the_timeline_shows_the_videos_of_median_and_worst_ap(rows: tuple[RowResult, ...]) -> None:
    truth, run = ground_truth(), rows[0].run
    detections = read_detections(rows[0].where[0].detections)
    tious, protocol = run.evaluation.tious, run.evaluation.protocol
    every = choose_videos(truth, detections, tious, protocol, [video.name for video in truth.videos])
    median, worst = choose_videos(truth, detections, tious, protocol)
    ranked = sorted(shown.average for shown in every)
    assert (median.average, worst.average) == (ranked[len(ranked) // 2], ranked[0])
    assert ranked[0] < ranked[-1]


def test_figures_are_set_aside_with_their_table_and_come_back_with_it(made: Path) -> None:
    folder = made / "results/figures/table4"
    key = figures_key(*read_table("table4", folder=made / "params"))
    keep_only_current_figures(folder, key)
    assert (folder / "index.json").exists()
    keep_only_current_figures(folder, "another")
    assert not folder.exists()
    keep_only_current_figures(folder, key)
    assert (folder / "recurrence.svg").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["table4"]


def test_where_labels_do_not_count_the_figures_show_what_the_metrics_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, {"proposals": proposals_table()})
    write_runs(tmp_path, "proposals", {"near": 0.5, "far": 4.0})
    folder = figures_stage("proposals", tmp_path, tracked=False)
    words = {figure["file"]: figure["alt"] for figure in read_json(folder / "index.json")["figures"]}
    first = read_table("proposals", folder=tmp_path / "params")[1][0].runs[0].run
    metrics = read_json(paths(first, tmp_path).metrics)
    areas = re.findall(r"([\d.]+) at tIoU (\d\.\d+)", words["precision-recall.svg"])
    assert {float(tiou): float(area) for area, tiou in areas} == {
        tiou: pytest.approx(100 * value, abs=0.5) for tiou, value in zip(metrics["tiou"], metrics["mAP"], strict=True)
    }
    assert metrics["average_mAP"] > 0.5
    assert all(float(average) > 10 for average in re.findall(r"AP ([\d.]+) %", words["timeline.svg"]))
    missed = re.findall(r"(near|far) ([\d.]+) %", words["false-negatives.svg"])
    assert {row: float(share) < 20 for row, share in missed} == {"near": True, "far": False}
    assert "CliffDiving" not in text_of(folder / "timeline.svg")


def test_a_renamed_row_makes_other_figures(made: Path) -> None:
    path = made / "params/tables/table4.yaml"
    before = figures_key(*read_table("table4", folder=made / "params"))
    text = path.read_text()
    path.write_text(text.replace("2 blocks, untied", "two blocks"))
    assert figures_key(*read_table("table4", folder=made / "params")) != before
    path.write_text(text)
    assert figures_key(*read_table("table4", folder=made / "params")) == before


def test_a_table_that_is_not_of_the_runs_of_now_is_refused(made: Path) -> None:
    path = made / "results/table4.json"
    before = read_json(path)
    write_json(path, before | {"made_of": "00000000"})
    try:
        with pytest.raises(RdfaError, match="not made of the runs of now; run: rdfa table table4"):
            figures_stage("table4", made, tracked=False)
    finally:
        write_json(path, before)


def test_tables_are_named_in_the_order_of_the_paper() -> None:
    names = list(shown_names(ROOT / "params").values())
    assert names == sorted(names, key=str.casefold), "so does Snakemake's report sort them, which knows no other order"
    numbered = [name for name in names if re.match(r"Table \d", name)]
    assert names[: len(numbered)] == numbered
    assert numbered.index("Table 2") < numbered.index("Table 2 on hapt") < numbered.index("Table 3")
    assert names.index("Table 5") < names.index("Table of RCL: iterations on hapt")


def test_a_table_without_a_number_is_called_what_its_file_says(tmp_path: Path) -> None:
    shown = shown_names(ROOT / "params")
    assert [name for name, label in shown.items() if label == name] == [], "a file's name says nothing to a stranger"
    assert len(set(shown.values())) == len(shown)
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "datasets").symlink_to(ROOT / "params" / "datasets")
    (tmp_path / "params" / "tables").mkdir()
    file = tmp_path / "params" / "tables" / "ours.yaml"
    for label, called in (("", "ours"), ("label: Our grid\n", "Our grid")):
        file.write_text(label + recurrence_table())
        found = shown_names(tmp_path / "params")
        assert (found["ours"], found["hapt_ours"]) == (called, f"{called} on hapt")
    file.write_text('label: "two\\nlines"\n' + recurrence_table())
    with pytest.raises(RdfaError, match=r"ours\.yaml: label: must be one line"):
        shown_names(tmp_path / "params")


def test_every_link_of_the_site_leads_somewhere_within_it(made: Path) -> None:
    site = made / "site"
    assert check_links(site) > 100
    assert (site / "docs" / "workflow.html").exists()


def test_every_page_stands_alone_and_every_image_is_described(made: Path) -> None:
    found = pages(made / "site")
    assert {Path("index.html"), Path("tables/table4.html")} <= set(found)
    for name, page in found.items():
        assert page.count("h1") == 1, name
        assert page.count("script") == 0, name
        assert page.language == "en", name
        assert page.viewport, name
        assert all(len(alt) > 20 for alt in page.alternatives), name
    table = found[Path("tables/table4.html")]
    assert len(table.alternatives) == len(list((made / "results/figures/table4").glob("*.svg")))


def test_pages_with_sample_numbers_say_so(made: Path) -> None:
    found = pages(made / "site")
    for name in ("index.html", "tables/table4.html"):
        assert "not comparable with any published number" in found[Path(name)].notice, name


def test_names_and_labels_cannot_become_html(made: Path) -> None:
    page = (made / "site/tables/table4.html").read_text()
    assert "Recurrence &lt;of&gt; the stem" in page
    assert "<of>" not in page
    svg = (made / "results/figures/table4/per-class.svg").read_text()
    assert "Diving &lt;&amp;&gt;" in svg
    assert set(CLASSES) <= set(read_json(next((made / "results/runs").glob("*/metrics-*.json")))["ap"])


def test_a_table_s_page_leads_to_the_records_of_its_runs_and_to_its_numbers(made: Path) -> None:
    table: Page = pages(made / "site")[Path("tables/table4.html")]
    entries = read_table("table4", folder=made / "params")[1]
    for entry in entries:
        for composed in entry.runs:
            where = paths(composed.run, made)
            assert f"../runs/{where.folder.name}/{where.metrics.name}" in table.links
    assert {"../files/table4.csv", "../files/table4.md"} <= set(table.links)
    assert not list((made / "site").rglob("*.safetensors"))


def test_the_site_says_how_to_cite(made: Path) -> None:
    text = (made / "site/index.html").read_text()
    for name in ("Sangyoun Lee", "Qiang Wang", "Tianwei Lin", "Reyes-Ortiz", "Caba Heilbron", "Yu-Gang Jiang"):
        assert name in text


def test_a_site_does_not_replace_what_is_not_one(made: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RdfaError, match="is not a site of rdfa"):
        site_stage([], made, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    write_project(made, {"table5": (ROOT / "params/tables/table5.yaml").read_text()})
    with pytest.raises(RdfaError, match="no figures of the runs of now; run: rdfa figures table5"):
        site_stage(["table5"], made, made / "site")
    (made / "params/tables/table5.yaml").unlink()


def test_an_index_cannot_bring_other_files_into_the_site(made: Path, tmp_path: Path) -> None:
    path = made / "results/figures/table4/index.json"
    before = read_json(path)
    escaping = [figure | {"file": "../../../params/defaults.yaml"} for figure in before["figures"][:1]]
    write_json(path, before | {"figures": escaping})
    try:
        with pytest.raises(RdfaError, match="is not a figure beside it; run: rdfa figures table4"):
            site_stage([], made, tmp_path / "site")
    finally:
        write_json(path, before)
    assert not (tmp_path / "site").exists()


def test_the_same_runs_make_the_same_figures(made: Path) -> None:
    folder = made / "results/figures/table4"
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    figures_stage("table4", made, tracked=False)
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert json.loads(before["index.json"])["table"] == "table4"
