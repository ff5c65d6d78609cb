"""The one command at full scale, from the Hub to the table: all four data sets, in miniature, from a local Hub."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from rdfa.files import read_json
from tests.data.hub_server import COMMIT, Hub, serving
from tests.data.hub_sets import CHANNELS, DATASETS, Published, miniature, publish, sha256
from tests.workflow.conftest import Clone, clone_project, git_clone

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.xdist_group("full scale")]

ROWS = (("thumos14", "paper"), ("activitynet", "released"), ("fineaction", "paper"), ("hacs", "released"))
TINY = {
    "features": {"dimension": CHANNELS},
    "windows": {"max_length": 64},
    "model": {
        "width": 16,
        "heads": {"width": 16},
        "block": {"state": 4},
        "stem": {"recurrence": 2},
        "regression_ranges": [[0, 4], [4, 8], [8, 10000]],
    },
    "training": {"epochs": 1, "schedule_epochs": 2, "warmup_epochs": 1, "batch_size": 2},
    "runtime": {"threads": 1, "workers": 0, "memory_mb": 2000, "minutes": 30},
    "variants": {"released": {"model": {"stem": {"channel_width": 16}}}},
}
"""What the clone's params/scales/full.yaml changes besides; GPUs are still asked for, two by the command line."""
COMMAND = ("snakemake", "--resources", "gpu=2", "--cores", "2", "--profile", "workflow/profiles/full")


@dataclass(frozen=True)
class Made:
    """A clone in which the one command has run."""

    clone: Clone
    hub: Hub
    published: dict[str, Published]
    outlook: str
    """What `rdfa fetch --dry-run` said before."""

    def run(self, *command: str, check: bool = True) -> str:
        done = self.clone.run(*command, check=check, HF_ENDPOINT=self.hub.url)
        return done.stdout + done.stderr

    def folder(self, dataset: str) -> Path:
        (found,) = (self.clone.root / "results" / "runs").glob(f"{dataset}-*")
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    clone = clone_project(tmp_path_factory.mktemp("full"))
    published = {dataset: miniature(dataset) for dataset in DATASETS}
    scale = clone.root / "params" / "scales" / "full.yaml"
    full = yaml.safe_load(scale.read_text())
    scale.write_text(yaml.safe_dump(full | TINY | {"runtime": full["runtime"] | TINY["runtime"]}))
    rows = [{"dataset": dataset, "model": "rdfa", "variant": variant} for dataset, variant in ROWS]
    table = {"title": "Main results", "scale": "sample", "seeds": [0], "rows": rows}
    for other in (clone.root / "params" / "tables").iterdir():
        other.unlink()  # their models have other blocks, and some look at epochs that are not reached here
    (clone.root / "params" / "tables" / "table1.yaml").write_text(yaml.safe_dump(table))
    known = "3b025685a07fb98fc58d2399fb5fa9493c2168632d8ae1a8c3f4689897d2fbb2"
    clone.edit("params/datasets/thumos14.yaml", known, sha256(json.dumps(published["thumos14"].annotations).encode()))
    with serving() as hub:
        for each in published.values():
            publish(hub, each)
        made = Made(clone, hub, published, "")
        outlook = made.run("rdfa", "fetch", *DATASETS, "--dry-run")
        assert not (clone.root / "data").exists(), "a dry run writes nothing"
        assert hub.contents() == []
        for dataset, each in published.items():
            each.place(clone.root / "data" / dataset)
        made.run(*COMMAND, "results/table1.csv")
        yield Made(clone, hub, published, outlook)


def test_a_dry_run_says_what_will_come_and_what_a_person_must_get(made: Made) -> None:
    for dataset, published in made.published.items():
        assert (
            f"{dataset}: to data/{dataset}\n  features  from {published.repository} at commit {COMMIT}" in made.outlook
        )
        assert f"data/{dataset}/annotations.json" in made.outlook
    assert made.outlook.count("external_scores.json") == 2
    assert made.outlook.count("free: enough") == 4
    total = sum(len(c) for each in made.published.values() for path, c in each.files().items() if ".part" in path)
    assert f"in all: {total / 1e6:.1f} MB to download" in made.outlook


def test_one_command_fills_the_table_from_the_hub(made: Made) -> None:
    with (made.clone.root / "results" / "table1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["data set"], row["variant"]) for row in rows] == list(ROWS)
    for row in rows:
        assert row["scale"] == "full" and row["features"].startswith("InternVideo2-")
        metrics = next(made.folder(row["data set"]).glob("metrics-*.json"))
        assert row["average"] == f"{100 * read_json(metrics)['average_mAP']:.2f}"
        assert not read_json(metrics)["planted_data"]


def test_every_byte_was_downloaded_once_and_nothing_but_data_sets_is_left(made: Made) -> None:
    total = sum(len(c) for each in made.published.values() for path, c in each.files().items() if ".part" in path)
    assert sum(request.sent for request in made.hub.contents()) == total
    assert sorted(path.name for path in (made.clone.root / "data").iterdir()) == sorted(DATASETS)


def test_the_record_of_a_run_leads_to_the_bytes_that_it_was_trained_on(made: Made) -> None:
    from rdfa.stages.opened import data_digest

    for dataset in DATASETS:
        (manifest,) = (made.clone.root / "data" / dataset).glob("manifest-*.json")
        assert read_json(manifest)["origin"]["commit"] == COMMIT
        assert read_json(made.folder(dataset) / "run.json")["data_digest"] == data_digest(read_json(manifest))


@pytest.mark.parametrize("dataset", ["activitynet", "hacs"])
def test_the_external_scores_name_the_detections(made: Made, dataset: str) -> None:
    scores = made.published[dataset].scores
    assert scores is not None
    (file,) = made.folder(dataset).glob("detections-*.json")
    results = read_json(file)["results"]
    assert results
    for video, detections in results.items():
        ranked = sorted(zip(scores["results"][video], scores["class"], strict=True), reverse=True)
        assert {each["label"] for each in detections} == {name for _, name in ranked[:2]}


def test_a_second_call_does_nothing(made: Made) -> None:
    made.hub.log.clear()
    assert "Nothing to be done" in made.run(*COMMAND, "results/table1.csv")
    assert made.hub.log == []


def test_features_from_the_hub_reach_a_colleague_through_dvc_without_the_hub(made: Made, tmp_path: Path) -> None:
    owner = made.clone
    owner.run("rdfa", "track", "thumos14", "hacs")
    owner.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    owner.run("git", "add", "--all")
    owner.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "-m", "shared")
    owner.run("dvc", "push", "data/thumos14", "data/hacs")
    colleague = git_clone(owner.root, tmp_path / "colleague")
    colleague.run("dvc", "pull", "data/thumos14")
    assert [path.name for path in (colleague.root / "data").iterdir()] == ["thumos14"]
    for file in (owner.root / "data" / "thumos14").iterdir():
        assert (colleague.root / "data" / "thumos14" / file.name).read_bytes() == file.read_bytes()
    planned = colleague.run(*COMMAND, "-n", "results/table1.csv").stdout
    assert re.search(r"^fetch +3$", planned, re.MULTILINE), "the three that were not pulled"
    made.hub.log.clear()
    colleague.run("rdfa", "fetch", "thumos14", HF_ENDPOINT=made.hub.url)
    assert made.hub.log == []


def test_a_run_is_not_evaluated_on_other_bytes_than_it_was_trained_on(made: Made) -> None:
    """Annotations without a known checksum can change under the same parameters; the run's record knows better."""
    path = made.clone.root / "data" / "fineaction" / "annotations.json"
    before = path.read_text()
    content = json.loads(before)
    next(iter(content["database"].values()))["annotations"].pop()
    path.write_text(json.dumps(content))
    made.run("rdfa", "fetch", "fineaction")
    message = made.run("rdfa", "evaluate", "fineaction-rdfa-paper-full-s0", check=False)
    assert "was trained on data with the digest" in message and "bring the old files back" in message
    path.write_text(before)
    made.run("rdfa", "fetch", "fineaction")
    assert "average" in made.run("rdfa", "evaluate", "fineaction-rdfa-paper-full-s0")
