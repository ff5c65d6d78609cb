"""docs/your-data.md, followed to the letter: every block of it is run, in its order, in a fresh clone."""

import csv
import re
import sys
from pathlib import Path

import pytest

from rdfa.files import read_json
from tests.workflow.conftest import Clone, clone_project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

SMALLER = (
    ("  width: 128 ", "  width: 16 "),
    ("    width: 128 ", "    width: 16 "),
    ("  epochs: 60 ", "  epochs: 1 "),
    ("  warmup_epochs: 5 ", "  warmup_epochs: 1 "),
)
"""What somebody with little patience changes among the values marked `default`."""


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return clone_project(tmp_path / "a clone")


def blocks(root: Path) -> list[tuple[str, str]]:
    """Language and text of the document's code blocks."""
    text = (root / "docs" / "your-data.md").read_text()
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def jobs(clone: Clone) -> set[tuple[str, int]]:
    """How often Snakemake would run each rule now, and the total."""
    planned = clone.run("snakemake", "-n", "results/mine.csv").stdout
    return {(rule, int(count)) for rule, count in re.findall(r"^(\w+) +(\d+)$", planned, re.MULTILINE)}


def test_the_documented_steps_lead_from_a_users_files_to_a_table(clone: Clone) -> None:
    (make, describe, check, fetch, table, refresh) = blocks(clone.root)
    assert [make[0], describe[0], refresh[0]] == ["python", "sh", "sh"]
    clone.run(sys.executable, "-c", make[1])
    clone.run("sh", "-ec", describe[1])
    for old, new in SMALLER:
        clone.edit("params/datasets/mine.yaml", old, new)
    assert "0 errors" in clone.run("sh", "-ec", check[1]).stdout
    assert (clone.root / "my" / "check.png").exists()
    clone.run("sh", "-ec", fetch[1])
    assert jobs(clone) == {("train", 2), ("detect", 2), ("evaluate", 2), ("table", 1), ("total", 7)}
    clone.run("sh", "-ec", table[1])
    with (clone.root / "results" / "mine.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["data set"], row["variant"], row["scale"]) for row in rows] == [
        ("mine", "paper", "full"),
        ("mine", "released", "full"),
    ]
    (manifest,) = (clone.root / "data" / "mine").glob("manifest-*.json")
    assert {name: split["videos"] for name, split in read_json(manifest)["splits"].items()} == {"train": 7, "test": 3}

    clone.edit("my/labels.csv", "v0,train,4.0,8.0,clap", "v0,train,4.0,8.2,clap")
    stopped = clone.run("sh", "-ec", table[1], check=False)
    assert stopped.returncode != 0
    assert "rdfa new-dataset mine --refresh" in stopped.stdout + stopped.stderr
    clone.run("sh", "-ec", refresh[1])
    assert jobs(clone) == {("fetch", 1), ("train", 2), ("detect", 2), ("evaluate", 2), ("table", 1), ("total", 8)}
