"""`fetch`: a data set's folder is whole, checked and described, or as it was before."""

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rdfa.data.annotations import read_annotations
from rdfa.data.fetch import fetch
from rdfa.data.sources.sample import write_sample
from rdfa.errors import RdfaError
from rdfa.files import read_json, sha256
from rdfa.params import compose
from rdfa.schema import Run

ROOT = Path(__file__).resolve().parents[2]
FEW = ("source.sample.train_videos=6", "source.sample.test_videos=3")


def run_of(dataset: str = "thumos14", scale: str = "sample", *overrides: str) -> Run:
    overrides = overrides or (FEW if scale == "sample" else ())
    composed = compose(
        dataset=dataset, model="rdfa", variant="paper", scale=scale, overrides=overrides, folder=ROOT / "params"
    )
    return composed.run


def by_hand(folder: Path, dataset: str = "thumos14") -> Run:
    """A folder filled by hand, and the full-scale run that it is for, but with features as narrow as the sample's."""
    made = run_of(dataset)
    fetch(made, folder, "made")
    (folder / "manifest-made.json").unlink()
    return run_of(dataset, "full", "source.hub.annotations.sha256=null").model_copy(update={"features": made.features})


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".made.json")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(run: Run, folder: Path, key: str = "k") -> str:
    with pytest.raises(RdfaError) as caught:
        fetch(run, folder, key)
    assert len(str(caught.value).splitlines()) <= 2
    assert not (folder / f"manifest-{key}.json").exists()
    return str(caught.value)


def python(code: str) -> subprocess.Popen[str]:
    script = "import sys; sys.path.insert(0, 'tests/data')\nfrom test_fetch import *\n" + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=-1, stderr=-1, text=True)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data" / "thumos14"


def test_a_fetched_folder_has_the_data_and_a_manifest_that_describes_it(place: Path) -> None:
    run = run_of()
    assert run.source.sample is not None
    manifest = fetch(run, place, "abc123")
    assert manifest == place / "manifest-abc123.json"
    assert entries(place) == ["annotations.json", "features.h5", "manifest-abc123.json"]
    assert entries(place.parent) == ["thumos14"], "neither lock nor temporary folder stays"
    content = read_json(manifest)
    assert content["dataset"] == "thumos14" and content["key"] == "abc123" and content["classes"] == 20
    assert {name: split["videos"] for name, split in content["splits"].items()} == {"Validation": 6, "Test": 3}
    videos = read_annotations(place / "annotations.json").subset("Test").videos
    assert content["splits"]["Test"]["instances"] == sum(len(video.labels) for video in videos)
    for name, file in content["files"].items():
        assert file == {"bytes": (place / name).stat().st_size, "sha256": sha256(place / name)}
    assert content["source"]["sample"] == run.source.sample.model_dump(mode="json")


def test_fetching_again_does_nothing(place: Path) -> None:
    first = fetch(run_of(), place, "k")
    before = {path.name: path.stat().st_mtime_ns for path in place.iterdir()}
    assert fetch(run_of(), place, "k") == first
    assert {path.name: path.stat().st_mtime_ns for path in place.iterdir()} == before


def test_the_same_parameters_give_the_same_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        fetch(run_of("activitynet"), tmp_path / name / "d", "k")
    assert bytes_of(tmp_path / "one" / "d") == bytes_of(tmp_path / "two" / "d")


def test_other_parameters_replace_the_folder(place: Path) -> None:
    fetch(run_of(), place, "old")
    (place / "stale.txt").write_text("of the old data")
    fetch(run_of("thumos14", "sample", "source.sample.train_videos=7", FEW[1]), place, "new")
    assert entries(place) == ["annotations.json", "features.h5", "manifest-new.json"]
    assert read_json(place / "manifest-new.json")["splits"]["Validation"]["videos"] == 7


def test_a_folder_on_another_disk_stays_there(place: Path) -> None:
    elsewhere = place.parents[1] / "big_disk" / "thumos14"
    elsewhere.mkdir(parents=True)
    place.parent.mkdir()
    place.symlink_to(elsewhere)
    fetch(run_of(), place, "old")
    fetch(run_of(), place, "new")
    assert place.is_symlink() and entries(elsewhere) == ["annotations.json", "features.h5", "manifest-new.json"]
    assert entries(elsewhere.parent) == ["thumos14"] and entries(place.parent) == ["thumos14"]


@pytest.mark.parametrize("harm", ["cut", "removed", "manifest"])
def test_a_harmed_folder_is_made_anew(place: Path, harm: str) -> None:
    fetch(run_of(), place, "k")
    whole = bytes_of(place)
    if harm == "cut":
        (place / "features.h5").write_bytes(whole["features.h5"][:-1])
    elif harm == "removed":
        (place / "annotations.json").unlink()
    else:
        (place / "manifest-k.json").write_text("{")
    fetch(run_of(), place, "k")
    assert bytes_of(place) == whole


def test_a_folder_that_no_fetch_has_made_is_left_alone(place: Path) -> None:
    place.mkdir(parents=True)
    (place / "precious.txt").write_text("years of work")
    assert "holds files that `rdfa fetch` did not make; move them away first" in refusal(run_of(), place)
    assert entries(place) == ["precious.txt"] and entries(place.parent) == ["thumos14"]


def test_a_folder_whose_manifest_alone_is_gone_is_known_by_its_content(place: Path) -> None:
    # Snakemake removes what a job was to make when the job is killed, if only after its end.
    fetch(run_of(), place, "k")
    whole = bytes_of(place)
    (place / "manifest-k.json").unlink()
    fetch(run_of(), place, "k")
    assert bytes_of(place) == whole
    (place / "manifest-k.json").unlink()
    (place / ".made.json").unlink()  # as an older version left it
    fetch(run_of(), place, "k")
    assert bytes_of(place) == whole


OTHERS = ("source.sample.train_videos=5", "source.sample.test_videos=3")


def test_after_a_change_of_parameters_it_is_known_by_the_checksums_of_what_was_made(place: Path) -> None:
    fetch(run_of(), place, "k")
    (place / "manifest-k.json").unlink()
    fetch(run_of("thumos14", "sample", *OTHERS), place, "other")
    assert read_json(place / "manifest-other.json")["splits"]["Validation"]["videos"] == 5
    (place / "manifest-other.json").unlink()
    (place / "annotations.json").unlink()  # one file alone is ours as well
    fetch(run_of(), place, "k")
    assert read_json(place / "manifest-k.json")["splits"]["Validation"]["videos"] == 6


@pytest.mark.parametrize("changed", ["annotations.json", "features.h5"])
@pytest.mark.parametrize("overrides", [FEW, OTHERS])
@pytest.mark.parametrize("mark", ["kept", "removed", "damaged", "foreign"])
def test_what_somebody_put_there_is_left_alone_whatever_the_checksums_say(
    place: Path, changed: str, overrides: tuple[str, ...], mark: str
) -> None:
    fetch(run_of(), place, "k")
    (place / "manifest-k.json").unlink()
    (place / changed).write_text("somebody's own")
    if mark == "removed":
        (place / ".made.json").unlink()
    elif mark != "kept":
        (place / ".made.json").write_text({"damaged": '{"files', "foreign": '{"files": [1]}'}[mark])
    before = bytes_of(place)
    assert "holds files that `rdfa fetch` did not make" in refusal(run_of("thumos14", "sample", *overrides), place)
    assert bytes_of(place) == before


def test_a_killed_fetch_leaves_nothing_to_trust_and_the_next_one_cleans_up(place: Path) -> None:
    code = f"""
        import os, signal
        import rdfa.data.fetch as module
        planted = module.write_sample
        def killed(run, folder):
            planted(run, folder)
            (folder / "features.h5").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        module.write_sample = killed
        fetch(run_of(), Path({str(place)!r}), "k")
    """
    assert python(code).wait(60) == -9
    assert not place.exists()
    left = entries(place.parent)
    assert len(left) == 2 and any(name.endswith(".part") for name in left)
    fetch(run_of(), place, "k")
    assert entries(place.parent) == ["thumos14"]


def test_a_fetch_killed_between_old_and_new_is_repeated(place: Path) -> None:
    fetch(run_of(), place, "k")
    whole = bytes_of(place)
    place.rename(place.parent / ".thumos14.x.old")
    fetch(run_of(), place, "k")
    assert bytes_of(place) == whole and entries(place.parent) == ["thumos14"]


@pytest.mark.parametrize("limit", [1_000, 300_000])
def test_a_full_disk_is_one_clear_line_and_changes_nothing(place: Path, limit: int) -> None:
    """Files that cannot grow are what a full disk looks like; 1 kB stops the annotations, 300 kB the features."""
    fetch(run_of(), place, "old")
    before = bytes_of(place)
    code = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        try:
            fetch(run_of(), Path({str(place)!r}), "new")
        except RdfaError as error:
            print(error)
    """
    output, errors = python(code).communicate(timeout=60)
    assert errors == ""
    assert "cannot be written (File too large)" in output and output.count("\n") == 1
    assert bytes_of(place) == before and entries(place.parent) == ["thumos14"]


def test_fetches_into_one_folder_wait_for_each_other(place: Path) -> None:
    code = f"""
        import rdfa.data.fetch as module
        planted = module.write_sample
        module.write_sample = lambda run, folder: (print("built"), planted(run, folder))
        fetch(run_of(), Path({str(place)!r}), "k")
    """
    started = [python(code) for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], outputs
    assert "".join(output for output, _ in outputs) == "built\n", "one builds, the others find it done"
    assert entries(place.parent) == ["thumos14"]


def test_a_folder_filled_by_hand_is_adopted(place: Path) -> None:
    run = by_hand(place)
    manifest = fetch(run, place, "mine")
    assert entries(place) == ["annotations.json", "features.h5", "manifest-mine.json"]
    assert read_json(manifest)["source"]["kind"] == "hub"
    assert read_json(manifest)["files"]["features.h5"]["sha256"] == sha256(place / "features.h5")


def change_annotations(place: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads((place / "annotations.json").read_text())
    change(content)
    (place / "annotations.json").write_text(json.dumps(content))


def test_by_hand_with_another_channel_count_is_refused(place: Path) -> None:
    run = by_hand(place)
    wide = run.features.model_copy(update={"dimension": 3200})
    message = refusal(run.model_copy(update={"features": wide}), place)
    assert "channels 64, the parameters or annotations say 3200" in message


def test_by_hand_with_a_video_without_features_is_refused(place: Path) -> None:
    run = by_hand(place)
    video = {"subset": "Test", "duration": 9.0, "annotations": []}
    change_annotations(place, lambda content: content["database"].update(lost=video))
    assert "1 of 4 annotated videos of split 'Test' have no features: lost; at most 1.00% may" in refusal(run, place)


def test_by_hand_with_an_empty_split_is_refused(place: Path) -> None:
    run = by_hand(place)
    shutil.copy(place / "annotations.json", place.parent / "kept.json")
    change_annotations(place, lambda content: [v.update(subset="Validation") for v in content["database"].values()])
    assert "no video in subset 'Test'" in refusal(run, place)


def test_by_hand_with_other_classes_is_refused(place: Path) -> None:
    run = by_hand(place)
    change_annotations(place, lambda content: content["classes"].append("zzz"))
    assert "21 classes, the parameters (num_classes) say 20" in refusal(run, place)


def test_by_hand_with_truncated_features_is_refused(place: Path) -> None:
    run = by_hand(place)
    whole = (place / "features.h5").read_bytes()
    (place / "features.h5").write_bytes(whole[: len(whole) // 2])
    assert "features.h5: not a whole feature store" in refusal(run, place)


def test_by_hand_with_features_that_are_not_finite_is_refused(place: Path) -> None:
    run = by_hand(place)
    with h5py.File(place / "features.h5", "r+") as file:
        file["Test/test_0001"][3, 7] = np.inf
    assert "video 'test_0001' has the feature inf at step 3, channel 7" in refusal(run, place)


def test_by_hand_with_unfit_external_scores_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "activitynet"
    run = by_hand(place, "activitynet")
    scores = read_json(place / "external_scores.json")
    database = read_json(place / "annotations.json")["database"]
    some = next(name for name in scores if database[name]["subset"] == run.test_subset)
    (place / "external_scores.json").write_text(json.dumps(scores | {some: {"no_such_class": 0.5}}))
    assert "classes that the annotations do not know: no_such_class" in refusal(run, place)
    (place / "external_scores.json").write_text(json.dumps(scores | {some: {}}))
    assert f"1 of 3 test videos have no scores: {some}" in refusal(run, place)
    del scores[some]
    (place / "external_scores.json").write_text(json.dumps(scores))
    assert f"1 of 3 test videos have no scores: {some}" in refusal(run, place)


def test_what_is_wrong_is_said_about_the_folder_and_not_about_a_temporary_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_other_features(run: Run, folder: Path) -> None:
        write_sample(run, folder)
        with h5py.File(folder / "features.h5", "r+") as file:
            del file["Test/test_0000"]
            file["Test/test_0000"] = np.zeros((4, 3), np.float16)

    monkeypatch.setattr("rdfa.data.fetch.write_sample", with_other_features)
    message = refusal(run_of(), place)
    assert str(place / "features.h5") in message and ".part" not in message
    assert not place.exists() and entries(place.parent) == []
