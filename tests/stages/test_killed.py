"""What processes that were killed leave behind, and how the next call deals with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import LoggedModelOutput, LoggedModelStatus

from rdfa.cli import main
from rdfa.files import write_text, written_whole
from rdfa.identity import keys
from rdfa.params import Composed
from rdfa.snakemake_lock import remove_lock_of_killed_calls
from rdfa.stages.detect import detect_stage
from rdfa.stages.evaluate import evaluate_stage
from rdfa.stages.fetch import fetch_stage
from rdfa.stages.train import train_stage
from rdfa.tracking import Store
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def store_in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)


def test_what_mlflow_calls_running_though_its_folder_is_whole_is_finished_by_the_next_call(
    tiny: Callable[..., Composed], tmp_path: Path
) -> None:
    composed = tiny(overrides=("training.epochs=1",))
    fetch_stage(composed.run, tmp_path, None)
    train_stage(composed, tmp_path)
    detect_stage(composed.run, tmp_path)
    store, key = Store(tmp_path), keys(composed.run).train
    run_id = store.find(key)
    assert run_id is not None
    for next_call in (lambda: train_stage(composed, tmp_path), lambda: evaluate_stage(composed.run, tmp_path)):
        store.client.update_run(run_id, status="RUNNING")
        assert (store.find(key), store.unfinished(key)) == (None, run_id)
        next_call()
        assert (store.find(key), store.unfinished(key)) == (run_id, None)
    assert store.has(run_id, "mAP_average")


def test_a_training_may_go_on_with_other_threads_and_half_a_model_is_none(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db.part").write_text("what a process left that was killed while it made the store")
    store = Store(tmp_path)
    assert [path.name for path in tmp_path.glob("mlflow.db.part*")] == []
    run_id = store.start("run", "key", {"runtime.threads": 1}, {})
    assert store.start("run", "key", {"runtime.threads": 2, "seed": 0}, {}) == run_id
    assert store.client.get_run(run_id).data.params == {"runtime.threads": "1", "seed": "0"}
    whole, half = (store.client.create_logged_model(store.experiment, name="model") for _ in range(2))
    store.client.finalize_logged_model(whole.model_id, LoggedModelStatus.READY)
    store.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0) for model in (whole, half)])
    assert store.model_of(run_id) == whole.model_id


def test_the_next_write_removes_what_a_killed_one_left_and_nothing_of_a_living_one(tmp_path: Path) -> None:
    path = tmp_path / "table [1].csv"
    child = os.fork()
    if child == 0:
        with written_whole(path) as temporary:
            temporary.write_text("half of")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    with written_whole(path) as living:
        assert not left.exists()
        write_text(path, "by somebody else")
        living.write_text("whole")
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "whole"


CALL = "from rdfa.snakemake_lock import *; remove_lock_of_killed_calls(); print('ready', flush=True); input()"


def test_snakemakes_lock_is_removed_when_no_call_lives_on_this_machine(tmp_path: Path) -> None:
    folder = tmp_path / ".snakemake"
    lock = folder / "locks" / "0.output.lock"
    lock.parent.mkdir(parents=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    living = subprocess.Popen(
        [sys.executable, "-c", CALL], cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert living.stdout is not None
    living.stdout.readline()
    lock.write_text("results/table1.csv\n")
    remove_lock_of_killed_calls(folder)
    assert lock.exists()
    living.kill()
    living.communicate()
    # This process holds its own share now, so another one asks.
    script = CALL.replace("; input()", "")
    for machine, stays in (("another", True), ("", False)):
        (folder / "rdfa.lock").unlink()
        (folder / "rdfa.lock").write_text(machine)
        subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
        assert lock.exists() == stays


def test_a_failed_allocation_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: object) -> None:
        try:
            raise MemoryError
        except MemoryError as error:
            raise ImportError("a library") from error

    monkeypatch.setattr("rdfa.stages.unused.unused_runs", fails)
    assert main(["gc"]) == 2
    assert "out of memory (a library); give the command more" in capsys.readouterr().err
