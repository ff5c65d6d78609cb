"""HAPT brought in as somebody's own data, by the commands of docs/your-data.md: the same data, the same metrics."""

import csv
import re
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from rdfa.cli import main
from rdfa.data.annotations import read_annotations
from rdfa.data.sources.archive import content_digest, read_members
from rdfa.data.sources.hapt import TEST_SUBJECTS
from rdfa.files import read_json
from tests.data.own_files import workspace

FEW = {"exp01_user01", "exp05_user03", "exp11_user06", "exp13_user07", "exp03_user02", "exp07_user04"}
"""Four recordings of the training subjects and two of the test subjects; all 12 classes occur in both."""
TINY = [
    f"--set={setting}"
    for setting in (
        "windows.max_length=512",
        "model.width=16",
        "model.heads.width=16",
        "model.block.state=4",
        "model.regression_ranges=[[0, 16], [16, 64], [64, 10000]]",
        "training.batch_size=1",
        "training.epochs=5",
        "training.schedule_epochs=6",
        "training.warmup_epochs=1",
        "training.learning_rate=0.01",
        "training.average.decay=0.0",
    )
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "hapt" / "HAPT_RawData_text.tar.xz"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


def few(archive: Path, target: Path) -> tuple[Path, str]:
    """An archive of a few of the recordings, and its digest."""
    members = read_members(archive, re.compile(r"(?:^|/)RawData/(?:labels|(?:acc|gyro)_exp\d\d_user\d\d)\.txt$"))
    kept = {name: content for name, content in members.items() if name[:-4].partition("_")[2] in FEW}
    numbers = {(int(name[3:5]), int(name[-2:])) for name in FEW}
    lines = members["labels.txt"].decode().splitlines()
    labels = [line for line in lines if tuple(map(int, line.split()[:2])) in numbers]
    kept["labels.txt"] = ("\n".join(labels) + "\n").encode()
    folder = target / "RawData"
    folder.mkdir()
    for name, content in kept.items():
        (folder / name).write_bytes(content)
    with tarfile.open(target / "few.tar", "w") as packed:
        packed.add(folder, "RawData")
    return target / "few.tar", content_digest(kept)


def export(form: str) -> list[str]:
    """The built-in data as a user would have it; returns the options that name it."""
    annotations = read_annotations("data/hapt/annotations.json")
    with open("labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "subset", "start", "end", "label", "duration"])
        for video in annotations.videos:
            for segment, label in zip(video.segments.tolist(), video.labels, strict=True):
                rows.writerow([video.name, video.subset, *segment, label, video.duration])
    if form == "store":
        Path("my.h5").write_bytes(Path("data/hapt/features.h5").read_bytes())
        return ["--features", "my.h5"]
    Path("features").mkdir()
    with h5py.File("data/hapt/features.h5") as store:
        for video in annotations.videos:
            features = store[video.subset][video.name][()]
            if form == "npy":
                np.save(f"features/{video.name}.npy", features)
            else:
                torch.save(torch.from_numpy(features.astype(np.float32).T.copy()), f"features/{video.name}.pt")
    return ["--features", "features", "--stride", "10", "--window", "50", "--fps", "50"]


def same_features(precision: bool) -> None:
    with h5py.File("data/hapt/features.h5") as theirs, h5py.File("data/mine/features.h5") as ours:
        assert {split: sorted(theirs[split]) for split in theirs} == {split: sorted(ours[split]) for split in ours}
        for split in theirs:
            for name, array in theirs[split].items():
                np.testing.assert_array_equal(ours[split][name][()], array[()])
                assert not precision or ours[split][name].dtype == array.dtype == np.float16
                for attribute in ("fps", "stride", "window", "duration"):
                    assert ours[split][name].attrs[attribute] == array.attrs[attribute]


def bring_in(form: str) -> None:
    assert main(["new-dataset", "mine", "--annotations", "labels.csv", *export(form), "--table"]) == 0
    assert main(["check-data", "mine"]) == 0
    assert main(["fetch", "mine"]) == 0


def metrics_of(dataset: str, *options: str) -> dict[str, object]:
    run = f"{dataset}-rdfa-paper-full-s0"
    for command in (["train", "--no-tracking"], ["detect"], ["evaluate", "--no-tracking"]):
        assert main([*command, run, *TINY, *options]) == 0
    (metrics,) = Path("results/runs").glob(f"{run}-*/metrics-*.json")
    (detections,) = metrics.parent.glob("detections-*.json")
    content: dict[str, object] = read_json(metrics) | {"detections": read_json(detections)}
    return {name: value for name, value in content.items() if name not in ("run", "data_set")}


def test_the_real_hapt_brought_in_as_own_data_is_the_same_data(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace(tmp_path))
    assert main(["fetch", "hapt", "--archive", str(archive)]) == 0
    bring_in("npy")
    assert Path("data/mine/annotations.json").read_bytes() == Path("data/hapt/annotations.json").read_bytes()
    same_features(precision=True)


@pytest.mark.parametrize("form", ["pt", "store"])
def test_every_form_of_hapt_is_the_same_data(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.chdir(workspace(tmp_path))
    path, digest = few(archive, tmp_path)
    assert main(["fetch", "hapt", "--archive", str(path), f"--set=source.archive.sha256=['{digest}']"]) == 0
    bring_in(form)
    assert Path("data/mine/annotations.json").read_bytes() == Path("data/hapt/annotations.json").read_bytes()
    same_features(precision=form == "store")


def test_hapt_brought_in_as_own_data_gives_the_same_metrics_as_the_built_in_source(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace(tmp_path))
    path, digest = few(archive, tmp_path)
    assert {int(name[-2:]) in TEST_SUBJECTS for name in FEW} == {True, False}
    accepted = f"--set=source.archive.sha256=['{digest}']"
    assert main(["fetch", "hapt", "--archive", str(path), accepted]) == 0
    bring_in("npy")
    built_in, own = metrics_of("hapt", accepted), metrics_of("mine")
    assert own == built_in
    assert 0 < built_in["average_mAP"] < 1  # type: ignore[operator]
