"""MLflow: what a person finds in the store, and what happens when there is none."""

import os
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

import rdfa
from rdfa.files import read_json, write_json
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


def table_runs(store: MlflowClient):  # type: ignore[no-untyped-def]
    """The run of table 1 and its children in the order of the list, which shows the youngest first."""
    experiment = store.get_experiment_by_name("rdfa-table1")
    runs = store.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
    parent, *children = runs
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    return parent, children


def test_the_table_has_an_experiment_with_its_rows_in_order_below_its_run(clone: Clone, store: MlflowClient) -> None:
    parent, children = table_runs(store)
    assert [run.info.run_name for run in children] == [f"{dataset} {variant}, seed 0" for dataset, variant in ROWS]
    names = {artifact.path for artifact in store.list_artifacts(parent.info.run_id)}
    assert {"table1.csv", "table1.md"} <= names
    written = read_json(clone.root / "results" / "table1.json")
    for dataset, variant in ROWS:
        assert f"| {dataset} {variant} | {written[dataset][variant]:.2f} |" in parent.data.tags["mlflow.note.content"]
    used = {used.dataset.name: used.dataset.digest for used in parent.inputs.dataset_inputs}
    assert used == {
        run.data.tags["data_set"] + "-sample": run.data.tags["data.digest"][:36] for run in trainings(store)
    }


def test_a_child_has_the_numbers_of_its_training_and_the_parameters_that_tell_rows_apart(
    clone: Clone, store: MlflowClient
) -> None:
    by_id = {run.info.run_id: run for run in trainings(store)}
    for child in table_runs(store)[1]:
        training = by_id[child.data.tags["training_run"]]
        assert f"/runs/{training.info.run_id})" in child.data.tags["mlflow.note.content"]
        copied = {name: child.data.metrics[name] for name in training.data.metrics}
        assert copied == pytest.approx(training.data.metrics, rel=1e-8)  # history.csv has ten digits
        both = (child, training)
        for name in ("loss", "learning_rate"):
            copy, live = ({p.step: p.value for p in store.get_metric_history(run.info.run_id, name)} for run in both)
            assert copy == pytest.approx(live, rel=1e-8)
            assert sorted(copy) == [1, 2, 3]
        own = {name: value for name, value in child.data.params.items() if name != "row"}
        assert own.items() <= training.data.params.items()
        assert child.data.params["row"] == f"{training.data.params['dataset']} {training.data.params['variant']}"
        assert "dataset" in own
        assert "training.batch_size" not in own
        assert "model.padding" in own  # of the variant
        seconds = child.data.metrics["training_seconds"]
        assert child.info.end_time - child.info.start_time == pytest.approx(1000 * seconds, abs=1)


def test_the_best_run_of_each_data_set_is_a_registered_model(clone: Clone, store: MlflowClient) -> None:
    averages = read_json(clone.root / "results" / "table1.json")
    for dataset in {dataset for dataset, _ in ROWS}:
        version = store.get_model_version_by_alias("rdfa-table1", f"best-{dataset}")
        variant = max(averages[dataset], key=averages[dataset].get)
        assert version.tags["run"].startswith(f"{dataset}-rdfa-{variant}-sample-s0-")
        assert (clone.root / "results" / "runs" / version.tags["run"]).exists()
        assert float(version.tags["average_mAP"]) * 100 == pytest.approx(averages[dataset][variant], abs=0.01)
        assert version.tags["planted_data"] == "true"
        assert "Planted sample data" in version.description
        model = mlflow.pyfunc.load_model(f"models:/rdfa-table1@best-{dataset}")
        assert model.metadata.signature is not None


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


@pytest.mark.parametrize("uri", ["sqlite:///{}/again.db", "file://{}/again"])
def test_the_store_is_rebuilt_from_results_once_and_a_better_run_becomes_a_version(
    clone: Clone, tmp_path: Path, uri: str
) -> None:
    environment = {"MLFLOW_TRACKING_URI": uri.format(tmp_path), "MLFLOW_ALLOW_FILE_STORE": "true"}
    figure = clone.root / "results" / "figures" / "table1" / "drawn.svg"
    figure.parent.mkdir(parents=True, exist_ok=True)
    figure.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    best = max((clone.root / "results" / "runs").glob("thumos14*/metrics-*.json"), key=average)
    metrics = best.read_text()
    table = clone.root / "results" / "table1.csv"
    written = table.read_text()
    try:
        assert "table1: logged" in clone.run("rdfa", "import-runs", **environment).stdout
        first = described(environment)
        clone.run("rdfa", "import-runs", **environment)
        assert described(environment) == first
        assert first["rdfa"] == sorted(f"{dataset}-rdfa-{variant}-sample-s0" for dataset, variant in ROWS)
        assert first["rdfa-table1"] == sorted(["table1", *(f"{data} {variant}, seed 0" for data, variant in ROWS)])
        assert first["versions"] == ["1", "2"]
        assert "figures/drawn.svg" in first["figures"]
        # Another run of the data set overtakes the best: what is registered follows results/.
        write_json(best, read_json(best) | {"average_mAP": 0.0})  # without its seal, as by somebody who means it
        clone.run("rdfa", "table", "table1", **environment)
        after = described(environment)
        assert after["versions"] == ["1", "2", "3"]
        assert after["best-thumos14"] == "3"
        assert len(after["rdfa-table1"]) == 2 * len(first["rdfa-table1"])  # the table's former state is not lost
    finally:
        best.write_text(metrics)
        clone.run("rdfa", "table", "table1", "--no-tracking")
        shutil.rmtree(clone.root / "results" / "figures")
    assert table.read_text() == written


def average(metrics: Path) -> float:
    return float(read_json(metrics)["average_mAP"])


def described(environment: dict[str, str]) -> dict[str, Any]:
    """Names of the runs of each experiment, figures, and versions of the registered model."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        client = MlflowClient(environment["MLFLOW_TRACKING_URI"])
        figures: list[str] = []
        found: dict[str, Any] = {"figures": figures}
        for experiment in client.search_experiments():
            runs = client.search_runs([experiment.experiment_id])
            found[experiment.name] = sorted(run.info.run_name for run in runs)
            tables = [run.info.run_id for run in runs if "rdfa.table" in run.data.tags]
            figures += [file.path for run in tables for file in client.list_artifacts(run, "figures")]
        versions = client.search_model_versions("name = 'rdfa-table1'")
        aliases = client.get_registered_model("rdfa-table1").aliases
        named = {name: str(version) for name, version in aliases.items()}
        return found | {"versions": sorted(str(version.version) for version in versions)} | named


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
