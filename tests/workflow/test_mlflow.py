"""MLflow: what a person finds in the store, and what happens when there is none."""

import os
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

import rdfa
from rdfa.files import read_json
from rdfa.params import read_yaml
from tests.workflow.conftest import ROWS, Clone

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("clone")]


@pytest.fixture
def store(clone: Clone) -> MlflowClient:
    uri = f"sqlite:///{clone.root / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    return MlflowClient(uri)


def trainings(store: MlflowClient):  # type: ignore[no-untyped-def]
    experiment = store.get_experiment_by_name("rdfa")
    return store.search_runs([experiment.experiment_id], "tags.variant != ''")


def test_every_training_is_one_finished_run_with_parameters_tags_and_curves(clone: Clone, store: MlflowClient) -> None:
    runs = trainings(store)
    assert sorted((run.data.tags["data_set"], run.data.tags["variant"]) for run in runs) == sorted(ROWS)
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.params["model.width"] == "16"
        assert {
            "mlflow.source.git.commit",
            "git.dirty",
            "data.digest",
            "model",
            "seed",
            "scale",
        } <= run.data.tags.keys()
        assert run.data.tags["planted_data"] == "true"
        for name in ("loss", "classification", "regression", "learning_rate"):
            history = store.get_metric_history(run.info.run_id, name)
            assert [metric.step for metric in history] == [1, 2, 3]
        assert "mAP_average" in run.data.metrics
        assert run.inputs.dataset_inputs[0].dataset.name == f"{run.data.tags['data_set']}-sample"
        names = {artifact.path.split("-")[0] for artifact in store.list_artifacts(run.info.run_id)}
        assert {"params.yaml", "history.csv", "log.txt", "run.json", "metrics", "detections"} <= names


def test_final_numbers_in_the_store_are_those_of_the_metrics_files(clone: Clone, store: MlflowClient) -> None:
    averages = read_json(clone.root / "results" / "table1.json")
    for run in trainings(store):
        expected = averages[run.data.tags["data_set"]][run.data.tags["variant"]]
        assert run.data.metrics["mAP_average"] * 100 == pytest.approx(expected, abs=1e-3)


def test_runs_of_the_table_are_children_of_its_run(clone: Clone, store: MlflowClient) -> None:
    experiment = store.get_experiment_by_name("rdfa")
    parents = store.search_runs([experiment.experiment_id], "tags.`rdfa.table` = 'table1'")
    newest = {run.data.tags["mlflow.parentRunId"] for run in trainings(store)}
    assert newest <= {parent.info.run_id for parent in parents}
    names = {artifact.path for artifact in store.list_artifacts(parents[0].info.run_id)}
    assert {"table1.csv", "table1.md"} <= names


def test_the_logged_model_detects_what_the_run_folder_detects(clone: Clone, store: MlflowClient) -> None:
    run = next(run for run in trainings(store) if run.data.tags["data_set"] == "thumos14")
    uri = f"models:/{run.outputs.model_outputs[0].model_id}"
    channels = int(run.data.params["features.dimension"])
    features = np.random.default_rng(0).standard_normal((150, channels), dtype=np.float32)
    (folder,) = (clone.root / "results" / "runs").glob(f"{run.info.run_name}-*")
    expected = rdfa.load(folder).detect(features, fps=30.0)
    assert len(expected) > 20
    model = mlflow.pyfunc.load_model(uri)
    found = model.predict(features)
    assert [rdfa.Segment(*row) for row in found.itertuples(index=False)] == expected
    halved = model.predict(features, params={"duration": 40.0, "overlap": 0.25})
    again = rdfa.load(folder).detect(features, duration=40.0, overlap=0.25)
    assert [rdfa.Segment(*row) for row in halved.itertuples(index=False)] == again != expected
    with pytest.raises(mlflow.exceptions.MlflowException, match="shape"):
        model.predict(features[:, :5])
    logged = Path(mlflow.artifacts.download_artifacts(uri))
    assert not [path for path in logged.rglob("*") if path.suffix in (".pkl", ".pth", ".pickle")]


def test_an_unreachable_server_stops_a_training_before_it_starts(clone: Clone) -> None:
    run = clone.run(
        "rdfa",
        "train",
        "thumos14-rdfa-paper-sample-s7",
        *settings(clone),
        check=False,
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
    )
    assert run.returncode == 2
    assert "the MLflow store http://127.0.0.1:9 cannot be used" in run.stderr
    assert "Traceback" not in run.stderr
    assert not list((clone.root / "checkpoints").glob("*-s7-*.safetensors"))


def test_results_without_their_store_are_imported_when_evaluated(clone: Clone) -> None:
    other = clone.root / "other store.db"
    clone.run(
        "rdfa",
        "evaluate",
        "thumos14-rdfa-paper-sample-s0",
        *settings(clone),
        MLFLOW_TRACKING_URI=f"sqlite:///{other}",
    )
    imported = trainings(MlflowClient(f"sqlite:///{other}"))
    assert len(imported) == 1
    history = MlflowClient(f"sqlite:///{other}").get_metric_history(imported[0].info.run_id, "loss")
    assert [metric.step for metric in history] == [1, 2, 3]
    other.unlink()
    # The results themselves are what was tracked: the import changed none of them but the id of the MLflow run.
    shutil.rmtree(clone.root / "mlruns", ignore_errors=True)


def settings(clone: Clone) -> list[str]:
    from rdfa.params import leaves

    row = read_yaml(clone.root / "params" / "tables" / "table1.yaml")["rows"][0]
    return [
        f"--set={key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in leaves(row["params"])
    ]


def test_six_first_users_of_one_store_do_not_disturb_each_other(clone: Clone) -> None:
    script = (
        "from pathlib import Path; from rdfa.tracking import Store; s = Store(Path('many')); "
        "i = s.start('x', str(__import__('os').getpid()), {'a': 1}, {}); "
        "[s.log_epoch(i, {'epoch': e, 'loss': 1.0}) for e in range(1, 6)]; s.end(i, 'FINISHED')"
    )
    import subprocess
    import sys

    environment = os.environ | {"PYTHONPATH": str(clone.root)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=clone.root, env=environment, stderr=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    errors = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 6, errors
    client = MlflowClient(f"sqlite:///{clone.root / 'many' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("rdfa")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 6
