"""Data of one's own: every form of it becomes the same data set, and a changed file never passes unseen."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from rdfa.cli import main
from rdfa.data.annotations import read_annotations
from rdfa.data.feature_files import open_features
from rdfa.data.features import FeatureStore
from rdfa.data.sources.own_files import open_files
from rdfa.data.tensors import read_tensor
from rdfa.errors import RdfaError
from rdfa.files import read_json
from rdfa.identity import keys
from rdfa.params import compose, flatten
from tests.data.own_files import FPS, GRID, STRIDE, WINDOW, recordings, workspace, write_features, write_labels

TINY = ("--set=model.width=16", "--set=model.heads.width=16", "--set=model.block.state=4", "--set=training.epochs=1")
RUN = "mine-rdfa-paper-full-s0"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workspace(tmp_path))
    return tmp_path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert main(arguments) == 2
        message = capsys.readouterr().err.strip()
        assert message.startswith("rdfa: error: ") and len(message.splitlines()) <= 3
        return message

    return run


def describe(features: Path, *options: str, labels: str = "labels.csv") -> list[str]:
    return ["new-dataset", "mine", "--annotations", labels, "--features", str(features), *options]


def brought_in(form: str = "npy", kind: Any = np.float32, table: tuple[str, ...] = ()) -> None:
    """A described and fetched data set `mine` in the working directory."""
    made = recordings(kind)
    write_labels(Path("labels.csv"), made)
    features = write_features(Path("features"), made, form)
    suffix = ("--suffix", "_feature.pt") if form == "pt" else ()
    grid = () if form in ("h5", "groups") else GRID
    assert main([*describe(Path(features.name), *grid, *suffix, *table)]) == 0
    assert main(["fetch", "mine"]) == 0


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("form", ["npy", "pt", "h5", "groups"])
def test_every_form_becomes_the_standard_folder_with_the_same_numbers(place: Path, form: str, kind: Any) -> None:
    brought_in(form, kind)
    made = recordings(kind)
    annotations = read_annotations("data/mine/annotations.json")
    assert [(v.name, v.subset, v.duration, v.fps) for v in annotations.videos] == [
        (each.name, each.subset, each.duration, FPS) for each in made
    ]
    store = FeatureStore("data/mine/features.h5")
    for video, each in zip(annotations.videos, made, strict=True):
        assert [(*segment, label) for segment, label in zip(video.segments.tolist(), video.labels, strict=True)] == (
            each.instances
        )
        np.testing.assert_array_equal(store.read(each.name), each.features.astype(np.float32))
        about = store.attributes(each.name)
        assert (about.stride, about.window, about.fps, about.duration) == (STRIDE, WINDOW, FPS, each.duration)
    with h5py.File("data/mine/features.h5") as file:
        assert file["train/v0"].dtype == (np.float16 if kind is np.float16 else np.float32)


def test_json_annotations_give_the_same_file_as_csv(place: Path) -> None:
    brought_in()
    first = Path("data/mine/annotations.json").read_bytes()
    write_labels(Path("labels.json"), recordings())
    Path("params/datasets/mine.yaml").unlink()
    assert main(describe(Path("features"), *GRID, labels="labels.json")) == 0
    assert main(["fetch", "mine"]) == 0
    assert Path("data/mine/annotations.json").read_bytes() == first


def test_parameters_are_derived_from_the_files(place: Path) -> None:
    brought_in("groups")
    run = compose(dataset="mine", model="rdfa", variant="released", scale="full").run
    assert (run.num_classes, run.train_subset, run.test_subset) == (2, "train", "test")
    assert (run.features.dimension, run.features.stride, run.features.window, run.features.fps) == (8, 5, 10, 25.0)
    # Instances of 2.75 to 3.2 s are up to 16 steps, half is 8: levels up to 4, 8 and beyond; videos of 120 to 150.
    assert run.model.regression_ranges == ((0, 4), (4, 8), (8, 10000))
    assert run.windows.max_length == 148 and run.model.stem.channel_width == 37
    assert run.runtime.gpus == 0


def test_a_video_without_a_duration_lasts_as_long_as_its_features(place: Path) -> None:
    made = recordings()
    made[0].instances = []
    write_labels(Path("labels.csv"), made, duration=False)
    write_features(Path("features"), made, "npy")
    assert main(describe(Path("features"), *GRID)) == 0
    assert main(["fetch", "mine"]) == 0
    videos = read_annotations("data/mine/annotations.json").videos
    assert [video.duration for video in videos] == [each.duration for each in made]
    assert videos[0].labels == ()


def test_what_is_not_evident_must_be_said(place: Path, refused: Callable[..., str]) -> None:
    made = recordings()
    for each in made:
        each.features, each.duration = each.features[:100], 20.0
    write_labels(Path("labels.csv"), made)
    write_features(Path("features"), made, "npy")
    grid = dict(zip(GRID[::2], GRID[1::2], strict=True))
    for option in grid:
        rest = [part for pair in grid.items() if pair[0] != option for part in pair]
        assert option in refused(*describe(Path("features"), *rest, "--layout", "TC"))
    assert "each array has shape (100, 8)" in refused(*describe(Path("features"), *GRID))
    assert main(describe(Path("features"), *GRID, "--layout", "TC")) == 0
    assert "layout: TC" in Path("params/datasets/mine.yaml").read_text()


@pytest.mark.parametrize("option", ["--stride=0", "--window=-5", "--fps=nan", "--fps=0"])
def test_a_grid_that_cannot_be_is_refused(place: Path, refused: Callable[..., str], option: str) -> None:
    write_labels(Path("labels.csv"), recordings())
    write_features(Path("features"), recordings(), "npy")
    assert "not a positive number" in refused(*describe(Path("features"), *GRID, option))


def test_a_layout_that_cannot_be_is_refused(place: Path, refused: Callable[..., str]) -> None:
    write_labels(Path("labels.csv"), recordings())
    write_features(Path("features"), recordings(), "npy")
    message = refused(*describe(Path("features"), *GRID, "--layout", "CT"))
    assert "--layout CT the number of channels would differ" in message


def test_subsets_of_other_names_must_be_chosen(place: Path, refused: Callable[..., str]) -> None:
    made = recordings()
    for each in made:
        each.subset = {"train": "Validation", "test": "Test"}[each.subset]
    write_labels(Path("labels.csv"), made)
    write_features(Path("features"), made, "npy")
    assert "has the subsets 'Test', 'Validation'; say with --train-subset" in refused(
        *describe(Path("features"), *GRID)
    )
    assert main(describe(Path("features"), *GRID, "--train-subset", "Validation", "--test-subset", "Test")) == 0


@pytest.mark.parametrize("name", ["Mine", "my-data", "../mine", "", "my data", "_mine"])
def test_a_name_that_cannot_be_part_of_a_path_is_refused(place: Path, refused: Callable[..., str], name: str) -> None:
    write_labels(Path("labels.csv"), recordings())
    write_features(Path("features"), recordings(), "npy")
    arguments = describe(Path("features"), *GRID)
    arguments[1] = name
    assert "cannot be a data set's name" in refused(*arguments)


def test_nothing_is_overwritten(place: Path, refused: Callable[..., str]) -> None:
    write_labels(Path("labels.csv"), recordings())
    write_features(Path("features"), recordings(), "npy")
    Path("params/tables/mine.yaml").write_text("precious")
    assert "mine.yaml: exists" in refused(*describe(Path("features"), *GRID, "--table"))
    assert not Path("params/datasets/mine.yaml").exists()
    assert main(describe(Path("features"), *GRID)) == 0
    assert "--refresh" in refused(*describe(Path("features"), *GRID))
    assert Path("params/tables/mine.yaml").read_text() == "precious"


def spoil_annotations() -> None:
    text = Path("labels.csv").read_text()
    Path("labels.csv").write_text(text.replace("1.5,4.25,a", "1.5,4.5,a", 1))


def spoil_features() -> None:
    array = np.load("features/v2.npy")
    array[5, 3] += 1
    before = os.stat("features/v2.npy")
    np.save("features/v2.npy", array)
    os.utime("features/v2.npy", ns=(before.st_atime_ns, before.st_mtime_ns))  # the same size, the same date


def spoil_by_renaming() -> None:
    """Another folder in the old one's place: no file in it is younger than what was fetched."""
    Path("features/v1.npy").rename("features/kept.npy")
    Path("other.npy").rename("features/v1.npy")


@pytest.mark.parametrize("spoil", [spoil_annotations, spoil_features, spoil_by_renaming])
def test_a_changed_file_stops_every_stage_until_it_is_accepted(
    place: Path, refused: Callable[..., str], spoil: Callable[[], None]
) -> None:
    np.save("other.npy", recordings()[1].features[::-1])
    brought_in(table=("--table",))
    for command in ("train", "detect", "evaluate"):
        assert main([command, RUN, *TINY, *(["--no-tracking"] if command != "detect" else [])]) == 0
    spoil()
    for command in ("fetch", "train", "detect", "evaluate"):
        assert "--refresh" in refused(command, RUN, *TINY), command
    assert "--refresh" in refused("table", "--no-tracking", "mine")
    before = Path("params/datasets/mine.yaml").read_text()
    assert main(["new-dataset", "mine", "--refresh"]) == 0
    after = Path("params/datasets/mine.yaml").read_text()
    assert [line for line in before.splitlines() if line not in after] == [
        line for line in before.splitlines() if "sha256: " in line
    ]
    manifest = read_json(next(Path("data/mine").glob("manifest-*")))
    assert main(["fetch", "mine"]) == 0
    (fetched,) = Path("data/mine").glob("manifest-*")
    assert read_json(fetched)["files"] != manifest["files"]
    missing = refused("evaluate", RUN, *TINY)
    assert "no such file; run: rdfa detect mine" in missing, "the old detections are not those of the new files"


def test_a_dry_run_names_the_files_that_the_data_comes_from(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labels(Path("labels.csv"), recordings())
    write_features(Path("features"), recordings(), "npy")
    assert main(describe(Path("features"), *GRID)) == 0
    assert main(["fetch", "mine", "thumos14-sample", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "mine: to data/mine\n  from      labels.csv and features\n" in told
    assert "thumos14-sample: to data/thumos14-sample\n  from      its parameters: planted here\n" in told
    assert not Path("data").exists()


def test_external_class_scores_are_refused_before_anything_is_done(place: Path, refused: Callable[..., str]) -> None:
    write_labels(Path("labels.csv"), recordings())
    write_features(Path("features"), recordings(), "npy")
    assert main(describe(Path("features"), *GRID)) == 0
    said = refused("fetch", "mine", "--set=detection.external_classes=1")
    assert "source.kind 'own' brings none: set it to 0" in said


def test_files_that_are_touched_moved_or_gone_change_nothing(place: Path, refused: Callable[..., str]) -> None:
    brought_in()
    manifest = next(Path("data/mine").glob("manifest-*"))
    key = manifest.name
    os.utime("labels.csv")
    os.utime("features/v0.npy")
    Path("features/unrelated.npy").write_bytes(b"?")
    assert main(["fetch", "mine"]) == 0
    Path("features").rename("elsewhere")
    assert main(["fetch", "mine"]) == 0
    yaml = Path("params/datasets/mine.yaml")
    yaml.write_text(yaml.read_text().replace('features: "features"', 'features: "elsewhere"'))
    assert main(["fetch", "mine"]) == 0
    assert [path.name for path in Path("data/mine").glob("manifest-*")] == [key]
    (Path("elsewhere") / "v3.npy").unlink()
    assert "changed since" in refused("fetch", "mine")


def test_a_refresh_that_does_not_fit_the_parameters_says_which(place: Path, refused: Callable[..., str]) -> None:
    brought_in()
    text = Path("labels.csv").read_text()
    Path("labels.csv").write_text(text.replace(",b,", ",c,", 1))
    before = Path("params/datasets/mine.yaml").read_text()
    assert "num_classes must be 3, not 2" in refused("new-dataset", "mine", "--refresh")
    assert Path("params/datasets/mine.yaml").read_text() == before
    assert "nothing to refresh" in refused("new-dataset", "hapt", "--refresh")


def test_where_the_files_are_is_in_no_key(place: Path) -> None:
    brought_in()
    here = compose(dataset="mine", model="rdfa", variant="paper", scale="full").run
    moved = compose(
        dataset="mine", model="rdfa", variant="paper", scale="full", overrides=("source.own.features=/x",)
    ).run
    other = compose(
        dataset="mine", model="rdfa", variant="paper", scale="full", overrides=(f"source.own.sha256='{'0' * 64}'",)
    ).run
    assert flatten(here) != flatten(moved) and keys(here) == keys(moved)
    assert keys(here).fetch != keys(other).fetch and keys(here).evaluate != keys(other).evaluate


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("video,subset,start,end\nv0,train,0,1", "no column label"),
        ("video;subset;start;end;label\nv0;train;0;1;a", "with commas"),
        ("video,subset,start,end,label\nv0,train,0,one,a", "line 2: end is 'one', not a number"),
        ("video,subset,start,end,label\nv0,train,0,nan,a", "line 2: end is 'nan', not finite"),
        ("video,subset,start,end,label\nv0,train,0,1", "line 2: not 5 fields"),
        ("video,subset,start,end,label\nv0,train,0,1,a\nv0,test,2,3,a", "line 3: video 'v0' is in subset 'test'"),
        ("video,subset,start,end,label\nv0,train,0,,a", "line 2: start, end and label must all be given"),
        ("video,subset,start,end,label\n,train,0,1,a", "line 2: the column 'video' is empty"),
        ("video,subset,start,end,label,duration\nv0,train,0,1,a,-1", "line 2: duration is '-1', not a positive"),
        ("video,subset,start,end,label,fps\nv0,train,0,1,a,25\nv0,train,1,2,a,30", "has fps 30, an earlier line"),
        ("", "no column video"),
    ],
)
def test_a_faulty_table_is_refused_with_its_line(
    place: Path, refused: Callable[..., str], rows: str, message: str
) -> None:
    write_features(Path("features"), recordings(), "npy")
    Path("labels.csv").write_text(rows)
    assert message in refused(*describe(Path("features"), *GRID))
    assert not Path("params/datasets/mine.yaml").exists()


def test_segments_outside_their_video_are_refused_by_fetch(place: Path, refused: Callable[..., str]) -> None:
    made = recordings()
    made[1].instances.append((20.0, 90.0, "a"))
    write_labels(Path("labels.csv"), made)
    write_features(Path("features"), made, "npy")
    assert main(describe(Path("features"), *GRID)) == 0
    message = refused("fetch", "mine")
    assert "labels.csv: video 'v1', annotation 3: segment [20.0, 90.0] leaves the video" in message
    assert not Path("data/mine").exists()


def test_names_that_do_not_fit_are_told_with_examples(place: Path, refused: Callable[..., str]) -> None:
    write_labels(Path("labels.csv"), recordings())
    write_features(Path("features"), recordings(), "pt")
    message = refused(*describe(Path("features"), *GRID))
    assert "6 of 6 annotated videos have no features: v0, v1" in message and "v0_feature" in message
    assert main(describe(Path("features"), *GRID, "--suffix", "_feature.pt")) == 0
    Path("features/v4_feature.pt").unlink()
    assert main(["new-dataset", "mine", "--refresh"]) == 2
    assert "1 of 6 annotated videos have no features: v4" in refused("new-dataset", "mine", "--refresh")


class Trap:
    """Unpickled, it leaves a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("sprung"),)


def spring_npy(path: Path) -> Path:
    np.save(path := path.with_suffix(".npy"), np.array([Trap()], dtype=object), allow_pickle=True)
    return path


def spring_pt(path: Path) -> Path:
    torch.save(Trap(), path := path.with_suffix(".pt"))
    return path


def spring_legacy(path: Path) -> Path:
    (path := path.with_suffix(".pt")).write_bytes(pickle.dumps(Trap(), protocol=2))
    return path


def spring_view(path: Path) -> Path:
    torch.save(torch.zeros(1).expand(1 << 40), path := path.with_suffix(".pt"))
    return path


def spring_two(path: Path) -> Path:
    torch.save({"features": torch.zeros(2, 2)}, path := path.with_suffix(".pt"))
    return path


def spring_half(path: Path) -> Path:
    torch.save(torch.zeros(100, 100), path := path.with_suffix(".pt"))
    path.write_bytes(path.read_bytes()[:9000])
    return path


@pytest.mark.parametrize("spring", [spring_npy, spring_pt, spring_legacy, spring_view, spring_two, spring_half])
def test_a_hostile_or_damaged_tensor_file_is_refused_and_not_run(place: Path, spring: Callable[[Path], Path]) -> None:
    path = spring(place / "bad")
    with pytest.raises(RdfaError) as caught:
        read_tensor(path)
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not Path("sprung").exists()


def test_a_tensor_of_brain_floats_becomes_single_precision_exactly(tmp_path: Path) -> None:
    tensor = torch.randn(4, 3).bfloat16()
    torch.save(tensor, tmp_path / "v.pt")
    read = read_tensor(tmp_path / "v.pt")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, tensor.double().numpy())


def test_a_tensor_file_of_an_old_pytorch_is_read(tmp_path: Path) -> None:
    tensor = torch.randn(4, 3).half().T
    torch.save(tensor, tmp_path / "v.pth", _use_new_zipfile_serialization=False)
    read = read_tensor(tmp_path / "v.pth")
    assert read.dtype == np.float16
    np.testing.assert_array_equal(read, tensor.numpy())


def test_values_that_lie_in_another_file_are_refused(place: Path, refused: Callable[..., str]) -> None:
    write_labels(Path("labels.csv"), recordings())
    Path("secret").write_bytes(bytes(4000))
    with h5py.File("features.h5", "w") as file:
        file.create_dataset("v0", (10, 8), "f4", external=[("secret", 0, 320)])
    assert "v0: its values lie in another file" in refused(*describe(Path("features.h5"), *GRID))
    with h5py.File("features.h5", "w") as file:
        file["v0"] = h5py.ExternalLink("secret.h5", "/v0")
    assert "6 of 6 annotated videos have no features" in refused(*describe(Path("features.h5"), *GRID))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda array: array.astype(np.int32), "holds int32, not floating-point numbers"),
        (lambda array: np.where(array > 2, np.nan, array), "features/v1.npy: video 'v1' has the feature nan at step"),
        (lambda array: array.astype(np.float64) * 1e300, "inf at step 0"),
        (lambda array: array[None], "has shape (1, 130, 8), not two axes"),
    ],
)
def test_features_that_cannot_be_used_are_named_by_fetch(
    place: Path, refused: Callable[..., str], change: Callable[[Any], Any], message: str
) -> None:
    made = recordings()
    write_labels(Path("labels.csv"), made)
    write_features(Path("features"), made, "npy")
    assert main(describe(Path("features"), *GRID)) == 0
    np.save("features/v1.npy", change(made[1].features))
    text, yaml = "", Path("params/datasets/mine.yaml")
    if main(["new-dataset", "mine", "--refresh"]) == 0:
        text = refused("fetch", "mine")
    else:
        text = refused("new-dataset", "mine", "--refresh")
    assert message in text and yaml.exists() and not Path("data/mine").exists()


def test_of_an_hdf5_file_with_many_videos_no_array_stays_open(place: Path) -> None:
    path = write_features(Path("features"), recordings(), "h5")
    before = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_DATASET)
    files = open_files(path, None)
    assert len(files.videos) == 6 and [files.array(video).shape[1] for video in files.videos] == [8] * 6
    opened = open_features(path, 8)
    assert opened[0].read(2, 5).shape == (3, 8)
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_DATASET) == before
