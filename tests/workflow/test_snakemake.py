"""What Snakemake runs, and what it leaves alone."""

import csv
import os
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest

from rdfa.files import read_json
from rdfa.identity import keys, parse_run_name, paths
from rdfa.params import compose
from rdfa.reporting.grids import read_table, table_names
from tests.conftest import ROOT
from tests.workflow.conftest import ROWS, Clone, clone_project, small_table

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("clone")]


def table(clone: Clone) -> list[dict[str, str]]:
    with (clone.root / "results" / "table1.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_row_per_data_set_and_variant_each_from_its_own_run(clone: Clone) -> None:
    rows = table(clone)
    assert [(row["data set"], row["variant"]) for row in rows] == list(ROWS)
    for row in rows:
        folder = clone.root / "results" / "runs" / row["runs"]
        (metrics,) = folder.glob("metrics-*.json")
        result = read_json(metrics)
        assert row["average"] == f"{100 * result['average_mAP']:.2f}"
        for tiou, value in zip(result["tiou"], result["mAP"], strict=True):
            assert row[f"mAP@{tiou:g}"] == f"{100 * value:.2f}"
        assert int(row["parameters"]) == read_json(folder / "run.json")["parameters"]


def test_numbers_of_planted_data_are_labelled_and_never_beside_published_ones(clone: Clone) -> None:
    for row in table(clone):
        assert row["scale"] == "sample"
        assert row["features"] == "planted (sample)"
        assert row["published"] == row["difference"] == ""
    text = (clone.root / "results" / "table1.md").read_text()
    assert "not comparable with any published number" in text
    assert "74.2" not in text


def test_a_second_call_does_nothing_and_says_so(clone: Clone) -> None:
    assert "Nothing to be done" in clone.snakemake()


@pytest.mark.parametrize(
    ("path", "old", "new", "jobs"),
    [
        ("params/defaults.yaml", "max_segments: 200", "max_segments: 150", "detect 2 evaluate 2 table 1"),
        ("params/defaults.yaml", "  device: auto", "  device: cpu", ""),
        ("params/datasets/thumos14.yaml", "0.6, 0.7]", "0.6]", "evaluate 2 table 1"),
        ("params/datasets/activitynet.yaml", "smoothing: 0.1", "smoothing: 0.2", "train 1 detect 1 evaluate 1 table 1"),
        ("params/models/rdfa.yaml", "drop_path: 0.3", "drop_path: 0.2", "train 3 detect 3 evaluate 3 table 1"),
        ("params/models/rdfa.yaml", "padding: leaky", "padding: masked", "train 1 detect 1 evaluate 1 table 1"),
        ("params/datasets/thumos14.yaml", "seed: 14", "seed: 15", "fetch 1 train 2 detect 2 evaluate 2 table 1"),
        ("params/datasets/hacs.yaml", "epochs: 12", "epochs: 13", ""),
        ("params/defaults.yaml", "# What every run starts from", "# Reworded", ""),
        ("params/tables/table1.yaml", "seeds:\n- 0", "seeds:\n- 1", "train 3 detect 3 evaluate 3 table 1"),
    ],
)
def test_changing_one_parameter_reruns_exactly_what_depends_on_it(
    clone: Clone, path: str, old: str, new: str, jobs: str
) -> None:
    assert jobs_after_edit(clone, path, old, new) == parse(jobs)
    assert clone.jobs() == {}


@pytest.mark.parametrize(
    ("path", "old", "new", "jobs"),
    [
        ("rdfa/training/losses.py", "_EPSILON = 1e-8", "_EPSILON = 1e-9", "train 3 detect 3 evaluate 3 table 1"),
        ("rdfa/training/losses.py", '"""The losses', '"""Reworded: the losses', ""),
        ("rdfa/evaluation/detect.py", "np.sqrt(", "np.cbrt(", "detect 3 evaluate 3 table 1"),
        ("rdfa/evaluation/average_precision.py", "thresholds > 0", "thresholds >= 0", "evaluate 3 table 1"),
        (
            "rdfa/data/sources/sample.py",
            "import",
            "import random\nimport",
            "fetch 2 train 3 detect 3 evaluate 3 table 1",
        ),
        ("rdfa/data/sources/hapt.py", "import", "import random\nimport", ""),
        ("rdfa/tracking/store.py", 'EXPERIMENT = "rdfa"', 'EXPERIMENT = "other"', ""),
        ("rdfa/cli/arguments.py", "prog=", "epilog='', prog=", ""),
    ],
)
def test_changing_code_reruns_exactly_the_stages_that_run_it(
    clone: Clone, path: str, old: str, new: str, jobs: str
) -> None:
    assert jobs_after_edit(clone, path, old, new) == parse(jobs)
    assert clone.jobs() == {}


def test_a_changed_list_of_rows_rebuilds_only_the_table(clone: Clone) -> None:
    before = (clone.root / "results" / "table1.csv").read_text()
    text = (clone.root / "params" / "tables" / "table1.yaml").read_text()
    first = text[text.index("- dataset:") : text.index("- dataset:", text.index("- dataset:") + 1)]
    undo = clone.edit("params/tables/table1.yaml", first, "")
    try:
        assert clone.jobs() == {"table": 1}
        clone.snakemake()
        assert before.splitlines()[1] not in (clone.root / "results" / "table1.csv").read_text()
    finally:
        undo()
    # Back to the old rows: all runs are there, the table is older than none of them, and still it is made again.
    assert clone.jobs() == {"table": 1}
    clone.snakemake()
    assert (clone.root / "results" / "table1.csv").read_text() == before


def test_neither_touched_files_nor_lost_records_rerun_anything(clone: Clone) -> None:
    for path in clone.root.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            os.utime(path)
    assert clone.jobs() == {}
    shutil.rmtree(clone.root / ".snakemake")
    for path in sorted((clone.root / "results").rglob("*"), reverse=True):
        os.utime(path, (1e9, 1e9)) if path.is_file() else None
    assert clone.jobs() == {}


def test_deleted_detections_are_made_again_without_training(clone: Clone) -> None:
    (detections,) = (clone.root / "results" / "runs" / table(clone)[0]["runs"]).glob("detections-*.json")
    (metrics,) = detections.parent.glob("metrics-*.json")
    content, result = detections.read_bytes(), metrics.read_text()
    for path in (detections, metrics, clone.root / "results" / "table1.csv"):
        path.unlink()
    assert clone.jobs() == {"detect": 1, "evaluate": 1, "table": 1}
    clone.snakemake()
    assert detections.read_bytes() == content
    assert metrics.read_text() == result


def test_every_job_leaves_a_log_and_a_benchmark(clone: Clone) -> None:
    for rule, count in (("fetch", 2), ("train", 3), ("detect", 3), ("evaluate", 3)):
        assert len(list((clone.root / "logs" / rule).glob("*.log"))) == count
        assert len(list((clone.root / "logs" / "benchmarks" / rule).glob("*.tsv"))) == count


@pytest.fixture(scope="module")
def planned_commands(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a dry run of all tables says: some share trainings, and some of these they evaluate in other ways."""
    fresh = clone_project(tmp_path_factory.mktemp("planned"))
    return fresh.run("snakemake", "-n", "-p", "--cores", "2", "tables").stdout


def test_each_planned_command_makes_the_file_that_it_is_planned_for(planned_commands: str) -> None:
    found = re.findall(r"rdfa (detect|evaluate) (.*) 2>&1 \| tee -i logs/\1/(.*)-([0-9a-f]{8})\.log", planned_commands)
    planned = set(found)
    folders = [folder for stage, _, folder, _ in planned if stage == "evaluate"]
    assert len(set(folders)) < len(folders), "no two tables share a training: this test shows nothing"
    for stage, arguments, folder, key in planned:
        name, *options = shlex.split(arguments)
        settings = tuple(option.removeprefix("--set=") for option in options)
        run = compose(**parse_run_name(name), overrides=settings, folder=ROOT / "params").run
        assert (paths(run).folder.name, getattr(keys(run), stage)) == (folder, key), arguments


def test_what_several_tables_need_is_trained_once(planned_commands: str) -> None:
    tables = (read_table(name, folder=ROOT / "params")[1] for name in table_names(ROOT / "params"))
    runs = [composed.run for entries in tables for entry in entries for composed in entry.runs]
    planted = [run for run in runs if run.source.kind == "sample"]
    trained = re.findall(r"rdfa train .* 2>&1 \| tee -i logs/train/(.*)\.log", planned_commands)
    assert sorted(trained) == sorted({paths(run).folder.name for run in planted})
    assert len(trained) == len({keys(run).train for run in planted}) < len(planted)


def test_a_wrong_parameter_stops_snakemake_with_file_and_key(clone: Clone) -> None:
    undo = clone.edit("params/defaults.yaml", "gradient_clip", "gradent_clip")
    try:
        output = clone.snakemake(check=False)
    finally:
        undo()
    assert "params/defaults.yaml: unknown parameter 'training.gradent_clip'; did you mean 'gradient_clip'?" in output


def test_lint_finds_nothing_and_the_readme_shows_the_graph_of_now(clone: Clone) -> None:
    clone.run("snakemake", "--lint")
    graph = clone.run("snakemake", "--rulegraph", "mermaid-js").stdout
    readme = (clone.root / "README.md").read_text()
    for rule in ("fetch", "train", "detect", "evaluate", "table", "figures"):
        assert rule in graph
        assert f"rdfa {rule}" in readme


def test_after_kill_9_the_next_call_goes_on_and_ends_in_the_table(tmp_path: Path) -> None:
    clone = clone_project(tmp_path)
    table = small_table(ROWS[:1]).replace("epochs: 3", "epochs: 40")
    (clone.root / "params" / "tables" / "table1.yaml").write_text(table)
    process = clone.start("snakemake", "--cores", "2", "results/table1.csv")
    while not list((clone.root / "checkpoints").glob("*.safetensors")) and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)  # Snakemake and its jobs, as when a machine goes down
    process.wait()
    assert not list((clone.root / "results" / "runs").glob("*/run.json"))
    assert "removing the lock of a snakemake call that was killed" in clone.snakemake()
    assert (clone.root / "results" / "table1.csv").exists()
    (log,) = (clone.root / "results" / "runs").glob("*/log.txt")
    assert "resumed from" in log.read_text()
    assert "Nothing to be done" in clone.snakemake()


def jobs_after_edit(clone: Clone, path: str, old: str, new: str) -> dict[str, int]:
    undo = clone.edit(path, old, new)
    try:
        return clone.jobs()
    finally:
        undo()


def parse(jobs: str) -> dict[str, int]:
    words = jobs.split()
    return {rule: int(count) for rule, count in zip(words[::2], words[1::2], strict=True)}


def test_nothing_of_this_machine_is_in_the_files_that_are_tracked(clone: Clone) -> None:
    tracked = clone.run("git", "ls-files").stdout.splitlines()
    found = [name for name in tracked if str(Path.home()).encode() in (clone.root / name).read_bytes()]
    assert found == []
