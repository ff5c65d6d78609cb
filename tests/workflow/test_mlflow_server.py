"""A shared MLflow server: runs arrive over HTTP, and its loss costs no training."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests.conftest import ROOT, TINY
from tests.workflow.ports import answers, free_port

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.xdist_group("clone")]
RUN = "thumos14-rdfa-paper-sample-s0"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Address and process of an MLflow server that passes artifacts on, as that of workflow/mlflow does."""
    port = free_port()
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", f"{tmp_path}/store"]
    log = (tmp_path / "server.log").open("wb")
    started = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *where, *stores],
        cwd=tmp_path,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    uri = f"http://127.0.0.1:{port}"
    while not answers(f"{uri}/health"):
        assert started.poll() is None, (tmp_path / "server.log").read_text()
        time.sleep(0.2)
    yield uri, started
    stop(started)
    log.close()


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server and its workers, the process group that the fixture started, as a machine does that goes down.

    SIGTERM would let it wait for the requests in flight, of a client that may be stopped.
    """
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=60)


def rdfa(root: Path, uri: str, *arguments: str) -> subprocess.Popen[str]:
    settings = [f"--set={value}" for value in TINY]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": uri}
    return subprocess.Popen(
        [sys.executable, "-m", "rdfa", *arguments, *settings],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run_arrives_at_a_server_with_its_curves_and_files_and_outlives_it(
    server: tuple[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    uri, process = server
    root = tmp_path / "client"
    root.mkdir()
    (root / "params").symlink_to(ROOT / "params")
    assert rdfa(root, uri, "fetch", RUN).wait(timeout=300) == 0
    training = rdfa(root, uri, "train", RUN)
    assert training.wait(timeout=300) == 0, training.communicate()
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("rdfa").experiment_id])
    assert run.info.status == "FINISHED"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == [1, 2, 3]
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"params.yaml", "history.csv", "log.txt", "run.json"} <= artifacts
    assert run.outputs.model_outputs
    assert not (root / "mlflow.db").exists()

    # The server goes down in the middle of another training: that one ends, and says what was not logged.
    training = rdfa(root, uri, "train", RUN.replace("s0", "s1"))
    while not list((root / "checkpoints").glob("*-s1-*.safetensors")):
        assert training.poll() is None, training.communicate()
        time.sleep(0.01)
    training.send_signal(signal.SIGSTOP)
    stop(process)
    training.send_signal(signal.SIGCONT)
    out, errors = training.communicate(timeout=300)
    assert training.returncode == 0, errors
    assert (root / out.strip() / "run.json").exists()
    lines = [line for line in errors.splitlines() if line.strip() and not line.startswith("selective scan:")]
    assert lines
    assert all(line.startswith("MLflow: not logged (") for line in lines), errors
