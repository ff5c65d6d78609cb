"""The command line: messages of one or two lines, exit statuses, and nothing half-written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rdfa.cli import main
from rdfa.data.features import FeatureStore, FeatureWriter
from tests.conftest import ROOT, TINY

RUN = "thumos14-rdfa-paper-sample-s0"
SETTINGS = [f"--set={setting}" for setting in TINY]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params").symlink_to(ROOT / "params")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RDFA_HAPT_ARCHIVE", raising=False)
    return tmp_path


@pytest.fixture
def fetched(checkout: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["fetch", RUN, *SETTINGS]) == 0
    capsys.readouterr()
    return checkout / "data" / "thumos14-sample"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that a user's mistake stops."""
    assert main(arguments) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("rdfa: error: ")
    assert len(message.splitlines()) <= 3
    return message


def change(folder: Path, edit) -> None:  # type: ignore[no-untyped-def]
    path = folder / "annotations.json"
    content = json.loads(path.read_text())
    name, video = next((name, video) for name, video in content["database"].items() if video["annotations"])
    edit(content, name, video)
    path.write_text(json.dumps(content))


def train(capsys: pytest.CaptureFixture[str]) -> str:
    return refused(capsys, "train", "--no-tracking", RUN, *SETTINGS)


def test_all_stages_run_one_after_the_other(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["fetch"], ["train", "--no-tracking"], ["detect"], ["evaluate", "--no-tracking"]):
        assert main([*command, RUN, *SETTINGS]) == 0
    output = capsys.readouterr().out
    assert "mAP@0.3" in output
    assert "(planted sample data)" in output
    assert sorted(path.name.split("-")[0] for path in (checkout / "results" / "runs").glob("*/*")) == [
        "checkpoint.safetensors",
        "detections",
        "history.csv",
        "log.txt",
        "metrics",
        "params.yaml",
        "run.json",
    ]


def test_an_unknown_run_says_how_a_run_is_named(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "DATASET-MODEL-VARIANT-SCALE-sSEED" in refused(capsys, "train", "thumos14")


@pytest.mark.parametrize("given", [["detect", "--out=x.json"], ["evaluate", "--json=x.json"], ["detect", "--steps=8"]])
def test_an_option_that_a_run_does_not_take_is_refused_not_ignored(
    checkout: Path, capsys: pytest.CaptureFixture[str], given: list[str]
) -> None:
    command, option = given
    assert f"or {option.split('=')[0]} and what else is for files" in refused(capsys, command, RUN, option)


def test_an_unknown_parameter_names_file_and_key(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "train", RUN, "--set", "model.widht=3")
    assert "command line: unknown parameter 'model.widht'; did you mean 'width'?" in message


def test_a_missing_archive_says_where_to_get_it(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "fetch", "hapt-rdfa-paper-full-s0", "--archive", "nowhere.zip")
    assert "nowhere.zip" in message
    assert not (checkout / "data" / "hapt").exists()


def test_a_truncated_archive_is_refused(checkout: Path, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (shared / "data" / "hapt" / "HAPT_RawData_text.tar.xz").read_bytes()
    (checkout / "cut.tar.xz").write_bytes(whole[: len(whole) // 2])
    refused(capsys, "fetch", "hapt-rdfa-paper-full-s0", "--archive", "cut.tar.xz")
    assert not (checkout / "data" / "hapt").exists()


@pytest.mark.parametrize("segment", [[5.0, 5.0], [6.0, 5.0], [1.0, 1e6], [-3.0, 2.0]])
def test_an_annotation_that_is_empty_or_outside_its_video_is_refused_with_its_place(
    fetched: Path, capsys: pytest.CaptureFixture[str], segment: list[float]
) -> None:
    named = []

    def spoil(content, name, video):  # type: ignore[no-untyped-def]
        named.append(name)
        video["annotations"][0]["segment"] = segment

    change(fetched, spoil)
    message = train(capsys)
    assert named[0] in message
    assert f"{segment[0]:g}" in message


def test_spoilt_data_is_made_again_by_fetch(fetched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (fetched / "annotations.json").read_bytes()
    (fetched / "annotations.json").write_text("{}")
    assert main(["fetch", RUN, *SETTINGS]) == 0
    assert (fetched / "annotations.json").read_bytes() == before


def test_an_annotation_that_is_not_a_number_is_refused(fetched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(fetched, lambda content, name, video: video["annotations"][0].update(segment=[0.0, float("nan")]))
    assert "nan" in train(capsys).lower()


def test_an_unknown_class_is_refused(fetched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(fetched, lambda content, name, video: video["annotations"][0].update(label="no such class"))
    assert "no such class" in train(capsys)


def test_a_video_without_features_is_named(fetched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def add(content, name, video):  # type: ignore[no-untyped-def]
        content["database"]["forgotten"] = video

    change(fetched, add)
    assert "forgotten" in train(capsys)


def rewrite(path: Path, edit) -> None:  # type: ignore[no-untyped-def]
    """Write a feature store again with `edit` applied to each video's features."""
    store = FeatureStore(path)
    videos = [(name, store.split(name), store.read(name), store.attributes(name)) for name in store.videos]
    store.close()
    with FeatureWriter(path) as writer:
        for name, split, features, about in videos:
            writer.add(name, split, edit(features), **vars(about))


def test_features_of_another_width_are_refused_with_both_numbers(
    fetched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(fetched / "features.h5", lambda features: features[:, :17])
    message = train(capsys)
    assert "17" in message
    assert "24" in message


def test_features_that_are_not_numbers_are_refused_with_their_place(
    fetched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import h5py

    with h5py.File(fetched / "features.h5", "r+") as file:
        name = next(iter(file["Validation"]))
        file["Validation"][name][3, 5] = float("nan")
    message = train(capsys)
    assert name in message
    assert "3" in message


def test_an_empty_split_names_the_splits_that_exist(fetched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def rename(content, name, video):  # type: ignore[no-untyped-def]
        for other in content["database"].values():
            other["subset"] = "Test"

    change(fetched, rename)
    assert "'Test'" in train(capsys)


@pytest.mark.parametrize("size", [0, 100_000])
def test_a_full_disk_leaves_nothing_half_written(checkout: Path, size: int) -> None:
    # A limit on file sizes fails a write just where a full disk would.
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}));"
        "from rdfa.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "fetch", RUN, *SETTINGS]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert list((checkout / "data").rglob("*")) == []


def test_a_full_disk_during_training_leaves_no_run(checkout: Path, fetched: Path) -> None:
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));"
        "from rdfa.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "train", "--no-tracking", RUN, *SETTINGS]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(checkout.glob("results/runs/*/run.json"))
    assert not list(checkout.rglob("*.part"))


def environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_a_table_without_its_runs_says_what_makes_them(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "run: rdfa evaluate" in refused(capsys, "table", "--no-tracking", "table1")


def test_gc_lists_unused_runs_and_deletes_only_when_told(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = checkout / "results" / "runs" / "thumos14-rdfa-paper-sample-s0-00000000"
    old.mkdir(parents=True)
    assert main(["gc"]) == 0
    assert old.name in capsys.readouterr().out
    assert old.exists()
    assert main(["gc", "--delete"]) == 0
    assert not old.exists()


def test_doctor_names_the_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "backend" in capsys.readouterr().out


def test_files_of_any_project_are_evaluated(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--ground-truth", str(shared / "data" / "thumos14" / "thumos14.json"), "--subset", "Test"]
    arguments += ["--detections", str(shared / "golden" / "eval_thumos_pred.json"), "--tiou", "0.3:0.7:0.1"]
    assert main(["evaluate", *arguments, "--json", str(tmp_path / "o.json"), "--csv", str(tmp_path / "o.csv")]) == 0
    assert "average    60.915" in capsys.readouterr().out
    assert json.loads((tmp_path / "o.json").read_text())["average_mAP"] == pytest.approx(0.609151855998, abs=1e-9)
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 22


def test_the_challenge_kits_own_files_are_evaluated(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thumos = shared / "data" / "thumos14"
    arguments = ["--ground-truth", str(thumos / "official" / "annotation_test"), "--protocol", "thumos14"]
    arguments += ["--detections", str(thumos / "cbr_detections" / "CBR_THUMOS-14_IoU0.5.txt"), "--tiou", "0.5"]
    assert main(["evaluate", *arguments]) == 0
    assert "mAP@0.5    30.980" in capsys.readouterr().out  # published: 31.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("{", "not a JSON file"),
        ("[]", "results"),
        ('{"results": {"v": [{"label": "a", "score": NaN, "segment": [0, 1]}]}}', "v"),
        ('{"results": {"v": [{"label": "a", "score": 0.5, "segment": [2, 1]}]}}', "v"),
    ],
)
def test_bad_detection_files_are_told_not_traced(
    checkout: Path, shared: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    Path("bad.json").write_text(content)
    truth = str(shared / "data" / "thumos14" / "thumos14.json")
    told = refused(capsys, "evaluate", "--ground-truth", truth, "--subset", "Test", "--detections", "bad.json")
    assert "bad.json" in told
    assert message in told


@pytest.mark.parametrize("tious", ["0.5:", "a", "0.5:0.9", "0:1:0", "1.5"])
def test_bad_thresholds_are_told_with_an_example(shared: Path, capsys: pytest.CaptureFixture[str], tious: str) -> None:
    arguments = ["--ground-truth", str(shared / "data" / "thumos14" / "thumos14.json"), "--subset", "Test"]
    arguments += ["--detections", str(shared / "golden" / "eval_thumos_pred.json"), "--tiou", tious]
    assert ("1.5" if tious == "1.5" else "0.3:0.7:0.1") in refused(capsys, "evaluate", *arguments)
