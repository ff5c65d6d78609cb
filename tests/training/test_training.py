"""Training as a whole: it learns, repeats itself, survives being killed, and learns nothing where there is nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rdfa.data.annotations import read_annotations, write_annotations
from rdfa.data.features import FeatureStore, FeatureWriter
from rdfa.errors import RdfaError
from rdfa.evaluation.average_precision import mean_average_precision
from rdfa.evaluation.detect import detect
from rdfa.files import read_json, sha256, write_json
from rdfa.identity import paths
from rdfa.inference.trained import load_detector
from rdfa.params import Composed
from rdfa.stages.detect import detect_stage
from rdfa.stages.evaluate import evaluate_stage
from rdfa.stages.fetch import fetch_stage
from rdfa.stages.opened import ground_truth, open_data
from rdfa.stages.train import train_stage
from rdfa.training.checkpoint import load_weights, save_weights
from tests.conftest import BASELINES, ROOT, TINY

Tiny = Callable[..., Composed]


def average_map(composed: Composed, root: Path) -> float:
    fetch_stage(composed.run, root, None)
    train_stage(composed, root, tracked=False)
    detect_stage(composed.run, root)
    return float(read_json(evaluate_stage(composed.run, root, tracked=False))["average_mAP"])


def weights(composed: Composed, root: Path) -> dict[str, torch.Tensor]:
    return load_weights(paths(composed.run, root).folder / "checkpoint.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "variant"), [("rdfa", "paper"), ("rdfa", "released"), *BASELINES])
def test_a_model_overfits_two_videos(tiny: Tiny, tmp_path: Path, model: str, variant: str) -> None:
    composed = tiny(
        model=model,
        variant=variant,
        seed=1,
        overrides=(
            "source.sample.train_videos=2",
            "source.sample.max_instances=8",
            "features.stride=16",
            "windows.max_length=256",
            "windows.crop_ratio=null",
            "model.width=32",
            "model.heads.width=32",
            "model.drop_path=0",
            "training.epochs=200",
            "training.schedule_epochs=200",
            "training.learning_rate=3.0e-3",
            "training.weight_decay=0",
        ),
    )
    run, where = composed.run, paths(composed.run, tmp_path)
    fetch_stage(run, tmp_path, None)
    train_stage(composed, tmp_path, tracked=False)
    data = open_data(run, where)
    truth = data.annotations.subset(run.train_subset)
    detector = load_detector(run, where.folder)
    found = detect(run, detector, truth.videos, data.annotations.classes, data.store, None, torch.device("cpu"))
    assert mean_average_precision(truth, found, [0.5], "activitynet").average > 0.9


@pytest.mark.parametrize("dataset", ["thumos14", "activitynet"])
def test_two_trainings_of_one_run_are_bit_identical(tiny: Tiny, tmp_path: Path, dataset: str) -> None:
    composed = tiny(dataset=dataset)
    maps = [average_map(composed, tmp_path / name) for name in ("first", "second")]
    assert maps[0] == maps[1]
    assert same(weights(composed, tmp_path / "first"), weights(composed, tmp_path / "second"))


def test_another_seed_trains_another_model(tiny: Tiny, tmp_path: Path) -> None:
    first, second = tiny(seed=0), tiny(seed=1)
    for composed in (first, second):
        fetch_stage(composed.run, tmp_path, None)
        train_stage(composed, tmp_path, tracked=False)
    assert not same(weights(first, tmp_path), weights(second, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_training_stopped_in_mid_epoch_and_resumed_ends_bit_identical(
    tiny: Tiny, tmp_path: Path, stop: signal.Signals
) -> None:
    overrides = (
        "training.epochs=8",
        "training.schedule_epochs=8",
        "training.test_looks_from=2",
    )
    composed = tiny(overrides=overrides)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    fetch_stage(composed.run, whole, None)
    train_stage(composed, whole, tracked=False)

    stopped.mkdir()
    (stopped / "params").symlink_to(ROOT / "params")
    fetch_stage(composed.run, stopped, None)
    settings = [f"--set={value}" for value in (*TINY, *overrides)]
    command = [sys.executable, "-m", "rdfa", "train", "--no-tracking", "thumos14-rdfa-paper-sample-s0", *settings]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=stopped, env=environment, stderr=subprocess.PIPE, text=True)
    state = paths(composed.run, stopped).state
    while not state.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.15)  # some steps into the next epoch
    process.send_signal(stop)
    process.communicate(timeout=120)
    assert process.returncode == (-stop if stop == signal.SIGKILL else 130)
    assert not (paths(composed.run, stopped).folder / "run.json").exists()
    train_stage(composed, stopped, tracked=False)

    assert same(weights(composed, whole), weights(composed, stopped))
    for name in ("history.csv", "params.yaml"):
        first, second = (paths(composed.run, root).folder / name for root in (whole, stopped))
        assert first.read_text() == second.read_text()
    assert not state.exists()


@pytest.mark.slow
def test_scrambled_labels_score_near_chance_where_true_ones_do_not(tiny: Tiny, tmp_path: Path) -> None:
    composed = tiny(
        overrides=(
            "source.sample.train_videos=40",
            "source.sample.test_videos=20",
            "features.dimension=48",
            "features.stride=16",
            "windows.max_length=256",
            "model.width=32",
            "model.heads.width=32",
            "model.block.state=8",
            "training.epochs=30",
            "training.schedule_epochs=30",
            "training.learning_rate=3.0e-3",
            "training.batch_size=4",
        )
    )
    true = average_map(composed, tmp_path / "true")
    scrambled = tmp_path / "scrambled"
    fetch_stage(composed.run, scrambled, None)
    scramble(paths(composed.run, scrambled).data / "annotations.json", composed.run.train_subset)
    found = average_map_of_fetched(composed, scrambled)
    print(f"average mAP: true labels {true:.3f}, scrambled {found:.3f}")
    assert found < 0.05
    assert true > 4 * found
    assert true > 0.15


def average_map_of_fetched(composed: Composed, root: Path) -> float:
    train_stage(composed, root, tracked=False)
    detect_stage(composed.run, root)
    return float(read_json(evaluate_stage(composed.run, root, tracked=False))["average_mAP"])


def scramble(path: Path, subset: str) -> None:
    """Shuffle labels over all instances of a subset, and move each instance to a random place of its video."""
    annotations = json.loads(path.read_text())
    generator = np.random.default_rng(0)
    rows = [row for v in annotations["database"].values() if v["subset"] == subset for row in v["annotations"]]
    labels = generator.permutation([row["label"] for row in rows])
    for row, label in zip(rows, labels, strict=True):
        row["label"] = str(label)
    for video in annotations["database"].values():
        if video["subset"] == subset:
            for row in video["annotations"]:
                length = row["segment"][1] - row["segment"][0]
                start = generator.uniform(0, video["duration"] - length)
                row["segment"] = [start, start + length]
    rewrite(path, annotations)


def rewrite(path: Path, annotations: Any) -> None:
    """Other annotations, as if they had been fetched."""
    write_json(path, annotations)
    (manifest,) = path.parent.glob("manifest-*.json")
    content = read_json(manifest)
    content["files"][path.name]["sha256"] = sha256(path)
    write_json(manifest, content)


def test_annotations_that_changed_since_they_were_fetched_are_refused_until_fetched_again(
    tiny: Tiny, tmp_path: Path
) -> None:
    composed = tiny()
    fetch_stage(composed.run, tmp_path, None)
    where = paths(composed.run, tmp_path)
    path = where.data / "annotations.json"
    whole = path.read_text()
    content = json.loads(whole)
    next(iter(content["database"].values()))["duration"] += 0.01
    write_json(path, content)
    for call in (open_data, ground_truth):
        with pytest.raises(RdfaError, match=r"annotations\.json: damaged or changed .*run: rdfa fetch thumos14-rdfa"):
            call(composed.run, where)
    fetch_stage(composed.run, tmp_path, None)
    assert path.read_text() == whole
    open_data(composed.run, where)


def test_a_run_that_another_process_trains_is_waited_for_and_not_trained_again(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from filelock import FileLock

    composed = tiny()
    fetch_stage(composed.run, tmp_path, None)
    where = paths(composed.run, tmp_path)
    where.state.parent.mkdir()
    lock = FileLock(where.state.with_suffix(".lock"), thread_local=False)
    lock.acquire()
    waiting = threading.Thread(target=train_stage, args=(composed, tmp_path, False))
    waiting.start()
    said = ""
    while "waiting for its end" not in said:
        said += capsys.readouterr().err
        time.sleep(0.01)
    assert f"another process is training {where.folder.name}" in said
    write_json(where.folder / "run.json", {"made by": "the other one"})
    lock.release()
    waiting.join()
    assert [path.name for path in where.folder.iterdir()] == ["run.json"]


def test_a_damaged_state_is_refused_with_what_to_do(tiny: Tiny, tmp_path: Path) -> None:
    composed = tiny()
    fetch_stage(composed.run, tmp_path, None)
    state = paths(composed.run, tmp_path).state
    state.parent.mkdir()
    state.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all!")
    with pytest.raises(RdfaError, match=r"cannot be resumed from .*delete it"):
        train_stage(composed, tmp_path, tracked=False)


@pytest.mark.parametrize("offset", [-1, -1000])
def test_weights_with_one_flipped_bit_are_refused(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "checkpoint.safetensors"
    weights = {"a": torch.arange(600, dtype=torch.float32), "b": torch.ones(3, dtype=torch.bfloat16)}
    save_weights(path, weights, {"run": "r"})
    assert same(load_weights(path), weights)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(RdfaError, match=r"checkpoint\.safetensors: not a whole .*its checksum is not that of"):
        load_weights(path)


def test_weights_of_versions_without_checksum_are_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "old.safetensors")
    assert same(load_weights(tmp_path / "old.safetensors"), {"a": torch.ones(3)})


def test_a_loss_that_is_not_a_number_names_step_and_videos(tiny: Tiny, tmp_path: Path) -> None:
    composed = tiny()
    fetch_stage(composed.run, tmp_path, None)
    blow_up(paths(composed.run, tmp_path).data / "features.h5")
    with pytest.raises(RdfaError, match=r"the loss became (nan|inf) at step 0 on the videos \S+, \S+; look at their"):
        train_stage(composed, tmp_path, tracked=False)
    assert not paths(composed.run, tmp_path).folder.exists()


def blow_up(path: Path) -> None:
    """Replace all features by numbers that are finite, but overflow when they are added."""
    store = FeatureStore(path)
    everything = [(name, store.split(name), store.shape(name), store.attributes(name)) for name in store.videos]
    store.close()
    with FeatureWriter(path) as writer:
        for name, split, shape, about in everything:
            writer.add(name, split, np.full(shape, 3e38, dtype=np.float32), **vars(about))


def test_training_without_data_says_which_command_fetches_it(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(RdfaError, match="run: rdfa fetch thumos14-rdfa-paper-sample-s0"):
        train_stage(tiny(), tmp_path, tracked=False)


def test_a_split_without_instances_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    composed = tiny()
    fetch_stage(composed.run, tmp_path, None)
    path = paths(composed.run, tmp_path).data / "annotations.json"
    content = json.loads(path.read_text())
    for video in content["database"].values():
        if video["subset"] == "Validation":
            video["annotations"] = []
    rewrite(path, content)
    with pytest.raises(RdfaError, match="no annotated instance to train on"):
        train_stage(composed, tmp_path, tracked=False)


def test_results_record_what_made_them(tiny: Tiny, tmp_path: Path) -> None:
    composed = tiny()
    average_map(composed, tmp_path)
    record = read_json(paths(composed.run, tmp_path).folder / "run.json")
    assert record["planted_data"] is True
    assert len(record["data_digest"]) == 64
    assert record["made_by"]["libraries"]["torch"] == torch.__version__
    assert record["made_by"]["python"]
    metrics = read_json(paths(composed.run, tmp_path).metrics)
    assert metrics["protocol"] == "activitynet"
    assert metrics["planted_data"] is True


def test_annotations_survive_being_written_and_read(tiny: Tiny, tmp_path: Path) -> None:
    composed = tiny()
    fetch_stage(composed.run, tmp_path, None)
    first = read_annotations(paths(composed.run, tmp_path).data / "annotations.json")
    write_annotations(tmp_path / "again.json", first)
    assert [video.name for video in read_annotations(tmp_path / "again.json").videos] == [v.name for v in first.videos]
