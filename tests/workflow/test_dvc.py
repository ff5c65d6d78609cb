"""DVC: `data.dvc` knows the data, `dvc repro` runs the workflow and does no job twice."""

from pathlib import Path

import pytest
import yaml

from rdfa.files import read_json
from rdfa.reporting.grids import read_table
from tests.conftest import ROOT
from tests.workflow.conftest import ROWS, Clone, clone_project, small_table

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("clone")]


def test_the_stage_knows_every_parameter_file_and_curve_of_its_table() -> None:
    written = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    entries = read_table("table1", folder=ROOT / "params")[1]
    runs = [composed for entry in entries for composed in entry.runs]
    read = {Path(origin) for composed in runs for origin in composed.origins.values() if origin.endswith(".yaml")}
    always = {"params/published.yaml", "params/tables/table1.yaml"}
    known = {name for file in written["stages"]["table1"]["params"] for name in file}
    assert known == {path.relative_to(ROOT).as_posix() for path in read} | always
    (curves,) = [plot["training loss"]["y"] for plot in written["plots"] if "training loss" in plot]
    shown = [f"{c.run.dataset} {entry.row.shown} s{c.run.seed}" for entry in entries for c in entry.runs]
    assert curves == {"results/table1-curves.csv": shown}


def test_repro_after_snakemake_runs_no_job_and_a_second_repro_not_even_snakemake(clone: Clone) -> None:
    before = {path: path.stat().st_mtime_ns for path in (clone.root / "results").rglob("*") if path.is_file()}
    first = clone.run("dvc", "repro")
    assert "Nothing to be done" in first.stdout + first.stderr
    second = clone.run("dvc", "repro")
    assert "Stage 'table1' didn't change, skipping" in second.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert "Data and pipelines are up to date" in clone.run("dvc", "status", "dvc.yaml").stdout


def test_metrics_show_prints_the_tables_averages(clone: Clone) -> None:
    clone.run("dvc", "repro")
    shown = clone.run("dvc", "metrics", "show", "--md").stdout
    averages = read_json(clone.root / "results" / "table1.json")
    for dataset, variant in ROWS:
        assert f"{averages[dataset][variant]:g}"[:5] in shown
        assert f"{dataset}.{variant}" in shown


def test_plots_show_writes_a_page(clone: Clone) -> None:
    undo = clone.edit("dvc.yaml", dvc_yaml_curves(clone), "          - thumos14 paper s0\n")
    try:
        clone.run("dvc", "plots", "show", "--out", "plots")
    finally:
        undo()
    page = (clone.root / "plots" / "index.html").read_text()
    assert "average" in page
    assert "thumos14 paper s0" in page


def dvc_yaml_curves(clone: Clone) -> str:
    text = (clone.root / "dvc.yaml").read_text()
    return text[text.index("          - thumos14 paper s0") :]


def test_data_dvc_knows_every_sample_data_set_byte_for_byte(clone: Clone) -> None:
    # The tests' own small data lies where the real samples belong: look at them in a folder of their own.
    aside = clone.root / "data"
    aside.rename(clone.root / "small data")
    try:
        for dataset in ("thumos14", "activitynet", "fineaction", "hacs"):
            clone.run("rdfa", "fetch", f"{dataset}-rdfa-paper-sample-s0")
        listed = clone.run("dvc", "status", "data.dvc").stdout
    finally:
        clone.run("rm", "-r", "data")
        (clone.root / "small data").rename(aside)
    assert "modified" not in listed, listed
    assert "deleted" not in listed.replace("deleted:            data/hapt", ""), listed


def test_repro_on_a_fresh_clone_makes_the_table_and_leaves_snakemake_nothing_to_do(tmp_path: Path) -> None:
    fresh = clone_project(tmp_path)
    (fresh.root / "params" / "tables" / "table1.yaml").write_text(small_table(ROWS[:1]))
    fresh.run("dvc", "repro")
    assert (fresh.root / "results" / "table1.csv").exists()
    assert "results" in (fresh.root / "dvc.lock").read_text()
    assert "Nothing to be done" in fresh.snakemake()
    assert "didn't change, skipping" in fresh.run("dvc", "repro").stdout
