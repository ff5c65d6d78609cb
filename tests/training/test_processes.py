"""One training shared by several processes: it must be the training of one process, whatever happens to them.

The processes are real: torchrun starts them, they exchange over gloo on the CPU.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from rdfa.errors import RdfaError
from rdfa.files import read_json
from rdfa.identity import keys, paths
from rdfa.params import Composed
from rdfa.stages.fetch import fetch_stage
from rdfa.stages.train import train_stage
from rdfa.training.checkpoint import load_weights
from rdfa.training.processes import Processes
from tests.conftest import ROOT, TINY

Tiny = Callable[..., Composed]
# One step an epoch, so that the history has a row per step; dropped paths, random crops, a normaliser with memory.
SHARED = (
    "source.sample.train_videos=4",
    "training.batch_size=4",
    "training.epochs=6",
    "training.schedule_epochs=6",
    "model.drop_path=0.5",
    "training.loss.normalizer=running",
)
LONG = (*SHARED, "training.epochs=60", "training.schedule_epochs=60")
LOSS_TOLERANCE = 1e-5
"""Relative, per step, in float32: only the order of sums differs."""


def torchrun(root: Path, variant: str, overrides: tuple[str, ...], processes: int = 2) -> subprocess.Popen[str]:
    """Start `torchrun ... -m rdfa train` in a folder that has data and parameters."""
    if not (root / "params").exists():
        (root / "params").symlink_to(ROOT / "params")
    width = ("model.stem.channel_width=16",) if variant == "released" else ()
    settings = [f"--set={value}" for value in (*TINY, *width, *overrides)]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)),
            *("-m", "rdfa", "train", "--no-tracking", f"thumos14-rdfa-{variant}-sample-s0", *settings),
        ],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(started: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and all words of a call."""
    out, errors = started.communicate(timeout=300)
    return started.returncode, out + errors


def history(composed: Composed, root: Path) -> list[dict[str, float]]:
    with (paths(composed.run, root).folder / "history.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def trained_alone(composed: Composed, root: Path) -> None:
    fetch_stage(composed.run, root, None)
    train_stage(composed, root, tracked=False)


def check_same_training(composed: Composed, alone: Path, shared: Path) -> None:
    """Same losses at every step and same final weights, to the tolerance of the order of sums."""
    rows = list(zip(history(composed, alone), history(composed, shared), strict=True))
    for expected, found in rows:
        assert found == pytest.approx(expected, rel=LOSS_TOLERANCE)
    weights = [load_weights(paths(composed.run, root).folder / "checkpoint.safetensors") for root in (alone, shared)]
    assert weights[0].keys() == weights[1].keys()
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "more"), [("paper", ()), ("released", ()), ("released", ("model.block.gradients=official",))]
)
def test_two_processes_train_as_one_does(tiny: Tiny, tmp_path: Path, variant: str, more: tuple[str, ...]) -> None:
    settings = (*SHARED, *more)
    composed, shared = tiny(variant=variant, overrides=settings), tmp_path / "shared"
    trained_alone(composed, tmp_path / "alone")
    fetch_stage(composed.run, shared, None)
    status, said = finished(torchrun(shared, variant, settings))
    assert status == 0, said
    assert said.count("results/runs/") == 1
    check_same_training(composed, tmp_path / "alone", shared)
    assert read_json(paths(composed.run, shared).folder / "run.json")["processes"] == 2
    assert not paths(composed.run, shared).state.exists()


@pytest.mark.slow
def test_processes_stopped_by_a_signal_save_one_step_and_go_on_as_if_never_stopped(tiny: Tiny, tmp_path: Path) -> None:
    composed, shared = tiny(overrides=LONG), tmp_path / "shared"
    trained_alone(composed, tmp_path / "alone")
    fetch_stage(composed.run, shared, None)
    state = paths(composed.run, shared).state

    first = torchrun(shared, "paper", LONG)
    wait_for(state, first)
    first.send_signal(signal.SIGTERM)  # torchrun passes it on
    status, said = finished(first)
    assert status != 0
    assert said.count("rdfa: ") == said.count("rdfa: interrupted; the same command goes on from here") == 1
    assert not (paths(composed.run, shared).folder / "run.json").exists()

    second = torchrun(shared, "paper", LONG)
    saved = state.stat().st_mtime_ns
    while state.stat().st_mtime_ns == saved and second.poll() is None:
        time.sleep(0.02)
    os.kill(workers(second.pid)[1], signal.SIGKILL)  # as the kernel does when memory runs out
    status, said = finished(second)
    assert status != 0
    assert said.count("rdfa: ") == 1, said
    assert "lost another process of this training" in said

    # What two processes left, one process finishes.
    train_stage(composed, shared, tracked=False)
    assert "resumed from" in (paths(composed.run, shared).folder / "log.txt").read_text()
    check_same_training(composed, tmp_path / "alone", shared)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists() and process.poll() is None:
        time.sleep(0.02)


def workers(torchrun: int) -> list[int]:
    """Ids of the processes that torchrun started, in the order of their ranks."""
    listed = subprocess.run(["ps", "-e", "-o", "ppid=,pid="], capture_output=True, text=True, check=True)
    pairs = (map(int, line.split()) for line in listed.stdout.splitlines())
    return sorted(pid for parent, pid in pairs if parent == torchrun)


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_with_one_message(tiny: Tiny, tmp_path: Path) -> None:
    composed = tiny(overrides=SHARED)
    fetch_stage(composed.run, tmp_path, None)
    spoil_one_video(paths(composed.run, tmp_path).data / "features.h5")
    status, said = finished(torchrun(tmp_path, "paper", SHARED))
    assert status != 0
    assert said.count("rdfa: ") == 1
    assert "has the feature nan at step 3, channel 5" in said
    assert "rdfa/training" not in said  # no traceback of ours


def spoil_one_video(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        video = sorted(file["Validation"])[0]
        file["Validation"][video][3, 5] = np.nan


def test_a_batch_that_cannot_be_shared_evenly_is_refused_with_both_numbers() -> None:
    with pytest.raises(RdfaError, match=r"a batch of 4 videos cannot be shared evenly by 3 processes"):
        Processes(0, 3).share(range(4))


def test_shares_of_a_batch_are_its_parts_in_order() -> None:
    assert [Processes(rank, 3).share(range(6)) for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]


def test_the_number_of_processes_and_threads_is_not_part_of_a_runs_identity(tiny: Tiny) -> None:
    assert keys(tiny(overrides=("runtime.gpus=4", "runtime.threads=8")).run) == keys(tiny().run)
