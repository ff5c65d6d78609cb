"""Detectors on a map of proposals in the one workflow: trained, resumed, detecting, evaluated, in a table."""

import csv
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rdfa.data.detections import read_detections
from rdfa.data.feature_files import Timing
from rdfa.data.features import FeatureStore, FeatureWriter
from rdfa.data.windows import TrainingWindows, Window
from rdfa.errors import RdfaError
from rdfa.files import read_json
from rdfa.identity import keys, paths
from rdfa.params import Composed, read_yaml
from rdfa.reporting.formats import to_csv
from rdfa.reporting.grids import Entry, Row
from rdfa.reporting.tables import rows_of
from rdfa.stages.detect import detect_stage
from rdfa.stages.detect_files import detect_files_stage
from rdfa.stages.evaluate import evaluate_stage
from rdfa.stages.fetch import fetch_stage
from rdfa.stages.opened import open_data
from rdfa.stages.train import train_stage
from rdfa.tracking import Store
from rdfa.training.loop import train
from tests.conftest import ROOT
from tests.proposals.conftest import OF_DETECTOR, Small


def evaluated(composed: Composed, root: Path) -> dict[str, object]:
    fetch_stage(composed.run, root, None)
    train_stage(composed, root, tracked=False)
    detect_stage(composed.run, root)
    return dict(read_json(evaluate_stage(composed.run, root, tracked=False)))


@pytest.mark.parametrize(("model", "variant"), OF_DETECTOR)
def test_a_detector_goes_through_the_whole_workflow_and_into_a_table(
    small: Small, tmp_path: Path, model: str, variant: str
) -> None:
    bins = ("evaluation.sensitivity.characteristic=coverage", "evaluation.sensitivity.bins=quantiles")
    composed = small(model, variant, overrides=bins)
    metrics = evaluated(composed, tmp_path)
    where = paths(composed.run, tmp_path)
    with (where.folder / "history.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    terms = ["loss", "boundary", "classification", "regression", "positives"]
    assert list(epochs[0]) == ["epoch", "step", *terms, "learning_rate"]
    assert all(np.isfinite(float(row[name])) for row in epochs for name in terms)
    recall = metrics["average_recall"]
    assert isinstance(recall, dict) and recall["AR@1"] <= recall["AR@100"]
    entry = Entry(row=Row(dataset="thumos14_tsn", model=model, variant=variant), runs=(composed,))
    rows = rows_of([entry], tmp_path, read_yaml(ROOT / "params" / "published.yaml"), ["published", "recall", "mAP_N"])
    shown = next(csv.DictReader(to_csv(rows).splitlines()))
    assert float(shown["AR@100"]) == pytest.approx(100 * recall["AR@100"], abs=0.005)
    assert {"sensitivity to coverage", "coverage XS", "G MACs"} <= shown.keys()
    assert shown["published"] == ""  # planted features


def test_mlflow_gets_recall_and_normalised_map_as_the_metrics_have_them(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    bins = ("evaluation.sensitivity.characteristic=coverage", "evaluation.sensitivity.bins=quantiles")
    composed = small(overrides=bins)
    metrics = evaluated(composed, tmp_path)
    evaluate_stage(composed.run, tmp_path)
    store = Store(tmp_path)
    run_id = store.find(keys(composed.run).train)
    assert run_id is not None
    logged, recall, sensitivity = (
        store.client.get_run(run_id).data.metrics,
        metrics["average_recall"],
        metrics["sensitivity"],
    )
    assert isinstance(recall, dict) and isinstance(sensitivity, dict)
    expected = {name.replace("@", "_"): value for name, value in recall.items() if name != "tiou"}
    assert {"AR_1", "AR_100", "AUC"} <= expected.keys()
    expected |= {"mAP_N_average": sensitivity["average_mAP_N"], "mAP_average": metrics["average_mAP"]}
    assert {name: logged[name] for name in expected} == pytest.approx(expected)


def test_a_video_keeps_its_two_external_classes_for_each_segment(small: Small, tmp_path: Path) -> None:
    composed = small()
    evaluated(composed, tmp_path)
    where = paths(composed.run, tmp_path)
    found = read_detections(where.detections)
    scores = read_json(where.data / "external_scores.json")
    for index, video in enumerate(found.videos):
        own = found.video_index == index
        best = sorted(scores[video], key=scores[video].get, reverse=True)[:2]
        assert {found.classes[label] for label in found.label_index[own]} == set(best)


class Interrupting(TrainingWindows):
    """Sends the process SIGINT when a window is read for the n-th time."""

    left = 0

    def __getitem__(self, item: tuple[int, int]) -> Window:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return super().__getitem__(item)


@pytest.mark.parametrize("variant", ["plain", "rcl"])
def test_a_training_that_is_interrupted_in_mid_epoch_ends_bit_identical(
    small: Small, tmp_path: Path, variant: str
) -> None:
    composed = small("bmn", variant, overrides=("training.batch_size=2",))
    run = composed.run
    fetch_stage(run, tmp_path, None)
    data = open_data(run, paths(run, tmp_path))
    videos = data.annotations.subset(run.train_subset).videos
    windows = Interrupting(run, videos, data.annotations.classes, data.store)
    assert len(windows) >= 4
    whole = train(run, windows, tmp_path / "whole.safetensors")
    windows.left = len(windows) + 1  # in the second epoch's first step
    with pytest.raises(KeyboardInterrupt):
        train(run, windows, tmp_path / "stopped.safetensors")
    assert (tmp_path / "stopped.safetensors").exists()
    resumed = train(run, windows, tmp_path / "stopped.safetensors")
    assert resumed.history == whole.history
    assert all(torch.equal(resumed.plain[name], value) for name, value in whole.plain.items())


def ordered(rows: list[dict[str, Any]]) -> list[tuple[float, str, list[float]]]:
    return sorted((row["score"], row["label"], row["segment"]) for row in rows)


def test_a_trained_run_finds_in_a_file_what_it_finds_in_its_data_set(small: Small, tmp_path: Path) -> None:
    composed = small(overrides=("detection.max_segments=100000", "detection.top_k=300", "windows.overlap=0.25"))
    evaluated(composed, tmp_path)
    where = paths(composed.run, tmp_path)
    store, path = FeatureStore(where.data / "features.h5"), tmp_path / "test.h5"
    with FeatureWriter(path) as writer:
        for name in store.videos:
            if store.split(name) == "Test":
                writer.add(name, "Test", store.read(name), **vars(store.attributes(name)))
    lengths = [store.shape(name)[0] for name in store.videos if store.split(name) == "Test"]
    assert max(lengths) > 3 * 32  # seen in several windows
    given = Timing(fps=None, stride=None, window=None, duration=None)
    scores = where.data / "external_scores.json"
    detect_files_stage(where.folder, path, tmp_path / "found.json", given=given, scores=scores)
    found, expected = (read_json(each)["results"] for each in (tmp_path / "found.json", where.detections))
    assert {video: ordered(rows) for video, rows in found.items()} == {
        video: ordered(rows) for video, rows in expected.items()
    }
    remarks = detect_files_stage(where.folder, path, tmp_path / "unnamed.json", given=given)
    assert any("needs external class scores" in remark for remark in remarks)
    unnamed = read_json(tmp_path / "unnamed.json")["results"]
    assert {each["label"] for video in unnamed.values() for each in video} == {"action"}


def test_passes_of_another_length_than_the_map_s_are_refused(small: Small, tmp_path: Path) -> None:
    composed = small()
    evaluated(composed, tmp_path)
    where, given = paths(composed.run, tmp_path), Timing(fps=None, stride=None, window=None, duration=None)
    with pytest.raises(RdfaError, match="sees windows of 32 steps and no others"):
        detect_files_stage(where.folder, where.data / "features.h5", tmp_path / "x.json", given=given, steps=64)


def test_without_a_classifier_actions_are_judged_whatever_their_labels(small: Small, tmp_path: Path) -> None:
    overrides = ("detection.external_classes=0", "evaluation.agnostic=true")
    composed = small(overrides=overrides)
    metrics = evaluated(composed, tmp_path)
    assert metrics["agnostic"] is True
    assert read_detections(paths(composed.run, tmp_path).detections).classes == ("action",)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["plain", "rcl"])
def test_a_detector_learns_where_an_untrained_one_does_not(small: Small, tmp_path: Path, variant: str) -> None:
    """On planted actions, class-agnostically."""
    common = (
        "source.sample.train_videos=60",
        "source.sample.test_videos=20",
        "features.dimension=48",
        "detection.external_classes=0",
        "evaluation.agnostic=true",
        "evaluation.tious=[0.5]",
        "model.base.width=32",
        "model.confidence.aligned=32",
        "model.confidence.width=16",
        "training.learning_rate=3.0e-3",
        "training.epochs=15",
        "training.schedule_epochs=15",
    )
    trained = evaluated(small("bmn", variant, dataset="activitynet_tsn", overrides=common), tmp_path)
    nothing = (*common, "training.epochs=1", "training.learning_rate=1.0e-9")
    untrained = evaluated(small("bmn", variant, dataset="activitynet_tsn", overrides=nothing), tmp_path)
    assert trained["average_mAP"] > 3 * untrained["average_mAP"]  # type: ignore[operator]
    assert trained["average_mAP"] > 0.2  # type: ignore[operator]
