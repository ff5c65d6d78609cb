"""The stages whose growth is measured, in the order of the pipeline, as a person calls them.

Each is called in the folder of one size; what an earlier one left there, a later one reads.
"""

import shutil
from pathlib import Path

import torch._dynamo  # noqa: F401 -- as an optimiser does: its memory would hide what grows

import rdfa.stages.check_data
import rdfa.stages.detect
import rdfa.stages.evaluate
import rdfa.stages.fetch
import rdfa.stages.new_dataset
import rdfa.stages.train  # noqa: F401 -- loaded once, in the process that all stages are forked from
from rdfa.cli import main
from rdfa.data.statistics import measure
from rdfa.data.windows import TestWindows, TrainingWindows
from rdfa.identity import paths
from rdfa.stages.opened import open_data
from tests.faults.load_growth import Stage
from tests.faults.load_set import RUN, SETTINGS, hacs_run, write_set

_SET = [f"--set={setting}" for setting in SETTINGS]


def command(*arguments: str, status: int = 0) -> None:
    """A command of rdfa that is to end with `status`."""
    found = main(arguments)
    assert found == status, f"rdfa {' '.join(arguments)}: exit status {found}"


def make(folder: Path, videos: int) -> None:
    write_set(folder, videos)


def fetch(folder: Path, videos: int) -> None:
    shutil.copytree(folder / "archive", folder / "data/hacs.downloads")
    command("fetch", RUN, *_SET)


def check_data(folder: Path, videos: int) -> None:
    command("check-data", RUN, *_SET, status=1)  # some segments leave their videos


def statistics(folder: Path, videos: int) -> None:
    run = hacs_run()
    measure(open_data(run, paths(run)).annotations, run.train_subset, "load")


def opening(folder: Path, videos: int) -> None:
    """What training and detection begin with; a window of every tenth video."""
    run = hacs_run()
    data = open_data(run, paths(run))
    for kind, subset in ((TrainingWindows, run.train_subset), (TestWindows, run.test_subset)):
        windows = kind(run, data.annotations.subset(subset).videos, data.annotations.classes, data.store)
        for index in range(0, len(windows), 10):
            windows.whole(index)


def train(folder: Path, videos: int) -> None:
    command("train", RUN, *_SET, "--no-tracking")


def detect(folder: Path, videos: int) -> None:
    command("detect", RUN, *_SET)


def evaluate(folder: Path, videos: int) -> None:
    command("evaluate", RUN, *_SET, "--no-tracking")


def diagnose(folder: Path, videos: int) -> None:
    found = next(folder.glob("results/runs/*/detections-*.json"))
    truth = ("--ground-truth", "data/hacs/annotations.json", "--subset", "validation")
    command("diagnose", *truth, "--detections", str(found), "--out", "diagnosis")


def new_dataset(folder: Path, videos: int) -> None:
    command("new-dataset", "load", "--annotations", "own/annotations.json", "--features", "own/features.h5")


def fetch_own(folder: Path, videos: int) -> None:
    command("fetch", "load")


VIDEOS = (
    Stage(name="fetch: archive to store", work=fetch, makes=("data/hacs/features.h5", "data/hacs/manifest*")),
    Stage(name="check-data", work=check_data),
    Stage(name="statistics", work=statistics),
    Stage(name="opening", work=opening),
    Stage(name="train, one epoch", work=train, makes=("results", "checkpoints")),
    Stage(name="detect", work=detect, makes=("results/runs/*/detections-*",)),
    Stage(name="evaluate", work=evaluate, makes=("results/runs/*/metrics-*",)),
    Stage(name="diagnose", work=diagnose, makes=("diagnosis",)),
    Stage(name="new-dataset", work=new_dataset, makes=("params/datasets/load.yaml",)),
    Stage(name="fetch of one's own", work=fetch_own, makes=("data/load", "data/.load.seen.json")),
)
"""By the number of videos."""
