"""DVC: `data.dvc` knows the data, `dvc repro` runs the workflow and does no job twice."""

import csv
import json

import pytest
import yaml

from rdfa.files import read_json
from rdfa.reporting.grids import elsewhere, read_table, table_names
from tests.conftest import ROOT
from tests.workflow.conftest import ROWS, Clone, clone_project, small_table

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("clone")]


NO_SETTINGS = ("params/templates/", "params/fidelity.yaml")
"""What is in params/ and decides no run."""


def test_the_stage_knows_every_parameter_file() -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["tables"]
    files = (path.relative_to(ROOT).as_posix() for path in (ROOT / "params").rglob("*.yaml"))
    there = [name for name in files if not name.startswith(NO_SETTINGS)]
    known = [name for file in stage["params"] for name in file]
    assert sorted(known) == sorted(there)


def test_every_table_has_its_numbers_and_plots_in_dvc() -> None:
    written = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    plots = {name: plot for entry in written["plots"] for name, plot in entry.items()}
    tables = tables_in_dvc()
    assert sorted(written["metrics"]) == sorted(f"results/{name}.json" for name in tables)
    assert sorted(plots) == sorted(f"{what}, {name}" for name in tables for what in ("average mAP", "training loss"))
    for name in tables:
        average, training = plots[f"average mAP, {name}"], plots[f"training loss, {name}"]
        assert (average["x"], average["y"]) == ({f"results/{name}.csv": "average"}, {f"results/{name}.csv": "row"})
        entries = read_table(name, folder=ROOT / "params")[1]
        shown = [f"{c.run.dataset} {entry.row.shown} s{c.run.seed}" for entry in entries for c in entry.runs]
        assert training["y"] == {f"results/{name}-curves.csv": shown}


def tables_in_dvc() -> list[str]:
    """All that have a file, and their grids on the data sets that the file says something for."""
    folder = ROOT / "params"
    files = {name: yaml.safe_load((folder / "tables" / f"{name}.yaml").read_text()) for name in table_names(folder)}
    others = [name for name, (file, dataset) in elsewhere(folder).items() if dataset in files[file].get("datasets", {})]
    return [*files, *others]


def test_repro_after_snakemake_runs_no_job_and_a_second_repro_not_even_snakemake(clone: Clone) -> None:
    before = {path: path.stat().st_mtime_ns for path in (clone.root / "results").rglob("*") if path.is_file()}
    first = clone.run("dvc", "repro")
    assert "Nothing to be done" in first.stdout + first.stderr
    second = clone.run("dvc", "repro")
    assert "Stage 'tables' didn't change, skipping" in second.stdout
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


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with one small row, committed after `dvc repro`."""
    made = clone_project(tmp_path_factory.mktemp("fresh"))
    (made.root / "params" / "tables" / "table1.yaml").write_text(small_table(ROWS[:1]))
    made.edit("dvc.yaml", dvc_yaml_curves(made), "          - thumos14 paper s0\n")
    made.run("dvc", "repro")
    commit(made, "baseline")
    return made


def commit(clone: Clone, message: str) -> None:
    clone.run("git", "add", "--all")
    clone.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--message", message)


def test_repro_on_a_fresh_clone_makes_the_table_and_leaves_snakemake_nothing_to_do(fresh: Clone) -> None:
    assert (fresh.root / "results" / "table1.csv").exists()
    assert "results" in (fresh.root / "dvc.lock").read_text()
    assert "Nothing to be done" in fresh.snakemake()
    assert "didn't change, skipping" in fresh.run("dvc", "repro").stdout


def test_an_experiment_is_a_variant_and_dvc_says_what_changed_between_two_commits(fresh: Clone) -> None:
    before = read_json(fresh.root / "results" / "table1.json")["thumos14"]["paper"]
    changed = "params/scales/sample.yaml:training.learning_rate=0.005"
    fresh.run("dvc", "exp", "run", "--name", "faster", "--set-param", changed)
    after = read_json(fresh.root / "results" / "table1.json")["thumos14"]["paper"]
    assert after != before
    assert len(list((fresh.root / "results" / "runs").glob("*/run.json"))) == 2

    (header, *lines) = csv.reader(fresh.run("dvc", "exp", "show", "--csv").stdout.splitlines())
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    rate, average = (
        next(name for name in header if name.endswith(end))
        for end in ("scales/sample.yaml:training.learning_rate", "thumos14.paper")
    )
    shown = {row["Experiment"] or row["rev"]: (float(row[rate]), float(row[average])) for row in rows if row[average]}
    assert shown["faster"] == (0.005, pytest.approx(after))
    assert [value for name, value in shown.items() if name in ("main", "master")] == [(0.002, pytest.approx(before))]

    commit(fresh, "faster")
    parameters = json.loads(fresh.run("dvc", "params", "diff", "HEAD~1", "HEAD", "--json").stdout)
    assert list(parameters) == ["params/scales/sample.yaml"]
    (name, change), *others = parameters["params/scales/sample.yaml"].items()
    assert (name, change["old"], change["new"], others) == ("training.learning_rate", 0.002, 0.005, [])
    metrics = json.loads(fresh.run("dvc", "metrics", "diff", "HEAD~1", "HEAD", "--json").stdout)
    average_change = metrics["results/table1.json"]["thumos14.paper"]
    assert (average_change["old"], average_change["new"]) == (pytest.approx(before), pytest.approx(after))
    fresh.run("dvc", "plots", "diff", "HEAD~1", "HEAD", "--out", "plots")
    page = (fresh.root / "plots" / "index.html").read_text()
    for expected in ("training loss, table1", "average mAP, table1", '"rev": "HEAD~1"', '"rev": "HEAD"'):
        assert expected in page
