"""The figures of tables on proposal maps: mAP against refinements, and normalised mAP by size of the instances."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from rdfa.data.annotations import Annotations
from rdfa.data.detections import read_detections
from rdfa.reporting.accuracy_figures import recurs, refinement_figure, refines
from rdfa.reporting.grid_figures import draw
from rdfa.reporting.grid_results import RowResult, read_results
from rdfa.reporting.grids import read_table
from rdfa.reporting.size_figure import by_size, size_figure
from tests.conftest import ROOT
from tests.reporting.proposal_scene import BINS, REFINEMENTS, write_refinements


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_refinements(root, "refinements")
    return root


@pytest.fixture(scope="module")
def rows(root: Path) -> tuple[RowResult, ...]:
    return read_results(read_table("refinements", folder=root / "params")[1], root)


def test_both_figures_are_among_the_table_s(root: Path, rows: tuple[RowResult, ...]) -> None:
    entries = read_table("refinements", folder=root / "params")[1]
    of_numbers = draw(entries, rows, Annotations((), ("action",)), read_detections)  # others read detections, too
    names = [drawing.name for drawing in islice(of_numbers, 5)]
    assert names == ["average", "refinement", "cost", "sizes", "per-class"]


def test_tables_that_vary_the_refinements_alone_have_the_figure() -> None:
    for name, expected in {"rcl_table1": True, "hapt_rcl_table1": True, "rcl_table2": False, "table4": False}.items():
        entries = read_table(name, folder=ROOT / "params")[1]
        assert refines(entries) == expected, name
        assert recurs(entries) == (name == "table4"), name


def test_the_refinement_figure_has_the_table_s_numbers_and_no_row_without_a_map_to_refine(
    rows: tuple[RowResult, ...],
) -> None:
    drawing = refinement_figure(rows)
    (axes,) = drawing.figure.axes
    (line,) = axes.containers
    assert line[0].get_xdata().tolist() == list(REFINEMENTS)  # type: ignore[union-attr]
    assert line[0].get_ydata() == pytest.approx([100 * np.mean(each) for each in REFINEMENTS.values()])  # type: ignore[union-attr]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [str(n) for n in REFINEMENTS]
    spreads = [(bar[1, 1] - bar[0, 1]) / 2 for bar in line[2][0].get_segments()]  # type: ignore[index]
    assert spreads == pytest.approx([100 * np.std(each, ddof=1) for each in REFINEMENTS.values()])
    assert "52.0 at 0, 52.5 at 1, 59.0 at 5, 57.5 at 15" in drawing.alt
    assert drawing.caption.endswith(".") and "2 seeds" in drawing.caption


def test_the_size_figure_has_a_bar_per_row_for_all_instances_and_each_size(rows: tuple[RowResult, ...]) -> None:
    drawing = size_figure(rows)
    (axes,) = drawing.figure.axes
    bars = [container for container in axes.containers if hasattr(container, "patches")]
    assert len(bars) == len(rows)
    for row, own in zip(rows, bars, strict=True):
        heights = [bar.get_height() for bar in own.patches]  # type: ignore[union-attr]
        assert heights == pytest.approx([row.mean, 0.2 * row.mean, 0.0, row.mean])
    assert [tick.get_text().split("\n")[0] for tick in axes.get_xticklabels()] == ["all instances", "XS", "S", "M"]
    assert [tick.get_text().split("\n")[-1] for tick in axes.get_xticklabels()[1:]] == [
        f"n = {each[3]}" for each in BINS
    ]
    assert "n = 5: all 59.0, XS 11.8, M 59.0" in drawing.alt
    assert drawing.caption.endswith(".") and "2 seeds" in drawing.caption


def test_bars_can_be_told_apart_without_colour(rows: tuple[RowResult, ...]) -> None:
    (axes,) = size_figure([*rows, *rows[:3]]).figure.axes
    hatches = {bars.patches[0].get_hatch() for bars in axes.containers if hasattr(bars, "patches")}
    assert len(hatches) == len(rows) + 3


def test_rows_in_other_bins_or_without_them_are_not_drawn_together(rows: tuple[RowResult, ...]) -> None:
    assert len(by_size(rows)) == len(rows)
    assert by_size([rows[0], replace(rows[1], by_size=None)]) == []
    first = rows[0].by_size
    assert first is not None
    assert by_size([rows[1], replace(rows[0], by_size=replace(first, characteristic="length"))]) == []
