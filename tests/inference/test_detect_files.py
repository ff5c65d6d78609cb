"""`rdfa detect --checkpoint` and `rdfa.load`: what a trained run's folder alone can do, and what it refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
import torch

import rdfa
from rdfa.cli import main
from rdfa.data.detections import read_detections
from rdfa.data.features import FeatureWriter
from rdfa.errors import RdfaError
from rdfa.files import read_json, write_json
from tests.conftest import ROOT
from tests.inference.conftest import ACTIVITYNET, THUMOS, noise

FPS = ["--fps", "30"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """A folder that holds a copy of a trained run, and nothing else of the project."""
    for name in ("checkpoint.safetensors", "params.yaml", "run.json"):
        (tmp_path / "run").mkdir(exist_ok=True)
        shutil.copy(folder / name, tmp_path / "run" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def detect(*arguments: str) -> dict[str, Any]:
    assert main(["detect", "--checkpoint", "run", *arguments]) == 0
    return dict(json.loads(Path("detections.json").read_text())["results"])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["detect", "--checkpoint", "run", *arguments]) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("rdfa: error: ")
    assert len(message.splitlines()) == 1
    assert not Path("detections.json").exists()
    return message


@pytest.mark.parametrize("name", [THUMOS, ACTIVITYNET])
def test_a_copied_folder_finds_what_the_run_finds_on_its_test_split(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (folder,) = (trained / "results" / "runs").glob(f"{name}-*")
    shutil.copytree(folder, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    # As a process of its own finds it: the command chooses the same arithmetic as `rdfa detect RUN` did above.
    torch.backends.mkldnn.matmul.fp32_precision = "none"
    data = trained / "data" / f"{name.split('-')[0]}-sample"
    # ActivityNet's videos are stretched to one pass and named by external scores; THUMOS-14's are longer than one.
    scores, one_pass = ["--scores", str(data / "external_scores.json")], ["--steps", "4096"]
    found = detect("--features", str(data / "features.h5"), *(scores if name == ACTIVITYNET else one_pass))
    expected = json.loads(next(folder.glob("detections-*.json")).read_text())["results"]
    assert len(expected) == 4
    for video, rows in expected.items():
        assert len(rows) > 5
        assert sorted(map(json.dumps, found[video])) == sorted(map(json.dumps, rows))


def test_every_file_format_and_the_api_find_the_same(work: Path) -> None:
    features = noise(150).astype(np.float16)
    np.save("v.npy", features)
    torch.save(torch.from_numpy(features), "v.pt")
    torch.save(torch.from_numpy(features), "old.pt", _use_new_zipfile_serialization=False)
    with h5py.File("plain.h5", "w") as file:
        file["v"] = features
    with FeatureWriter("store.h5") as writer:
        writer.add(
            "v", "any", features, fps=30.0, stride=32, window=16, duration=120.0, encoder="noise", source="a seed"
        )
    segments = rdfa.load("run").detect(features)
    assert len(segments) > 50
    expected = [{"label": s.label, "score": s.score, "segment": [s.start, s.end]} for s in segments]
    for path in ("v.npy", "v.pt", "plain.h5"):
        assert detect("--features", path) == {"v": expected}
    assert detect("--features", "old.pt")["old"] == expected
    in_file, said = detect("--features", "store.h5"), detect("--features", "v.npy", "--duration", "120")
    assert in_file == said
    assert max(row["segment"][1] for row in said["v"]) <= 120 < max(row["segment"][1] for row in expected)
    assert [s._asdict() for s in rdfa.load("run/checkpoint.safetensors").detect(torch.from_numpy(features))] == [
        s._asdict() for s in segments
    ]
    assert [s.score for s in segments] == sorted((s.score for s in segments), reverse=True)
    assert {s.label for s in segments} <= set(json.loads(Path("run/run.json").read_text())["classes"])


def test_a_folder_of_files_gives_one_result_file_and_a_timeline(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("features").mkdir()
    np.save("features/a.npy", noise(40))
    torch.save(torch.from_numpy(noise(90, seed=1)), "features/b.pt")
    Path("features/notes.txt").write_text("not features")
    assert list(detect("--features", "features", "--timeline", "picture.svg")) == ["a", "b"]
    told = capsys.readouterr().err
    assert "fps of 2 of 2 videos is not in the file: the run's 30 is used (--fps)" in told
    assert "stride of 2 of 2" in told
    assert len(read_detections("detections.json").videos) == 2
    drawn = ElementTree.parse("picture.svg").getroot()
    paths = len(list(drawn.iter("{http://www.w3.org/2000/svg}path")))
    assert paths > len(read_detections("detections.json"))
    before = Path("picture.svg").read_bytes()
    detect("--features", "features", "--timeline", "picture.svg")
    assert Path("picture.svg").read_bytes() == before


def test_numbers_that_were_given_are_not_told_as_assumed(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("v.npy", noise(40))
    detect("--features", "v.npy", *FPS, "--stride", "32", "--window", "16", "--duration", "42.5")
    assert capsys.readouterr().err == ""


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("payload-ran"),)


def damaged_store() -> None:
    with h5py.File("x.h5", "w") as file:
        file.create_dataset("v", data=noise(4000), chunks=(100, 24), fletcher32=True)
    whole = Path("x.h5").read_bytes()
    Path("x.h5").write_bytes(whole[: len(whole) // 2])


def store(**attributes: float) -> None:
    with h5py.File("x.h5", "w") as file:
        file["v"] = noise(40)
        file["v"].attrs.update(attributes)


def elsewhere() -> None:
    Path("secret").write_bytes(bytes(40 * 24 * 4))
    with h5py.File("x.h5", "w") as file:
        file.create_dataset("v", (40, 24), "f4", external=[("secret", 0, 40 * 24 * 4)])


def of_the_file() -> None:
    with h5py.File("x.h5", "w") as file:
        file["v"] = noise(40)
        file.attrs["stride"] = 16


def not_finite() -> None:
    features = noise(300)
    features[202, 7] = np.nan
    np.save("x.npy", features)


@pytest.mark.parametrize(
    ("make", "path", "words"),
    [
        (lambda: np.save("x.npy", noise(40, 23)), "x.npy", "shape (40, 23), the run needs (T, 24)"),
        (lambda: np.save("x.npy", noise(40).T), "x.npy", "transpose them"),
        (lambda: np.save("x.npy", noise(40)[None]), "x.npy", "shape (1, 40, 24)"),
        (lambda: np.save("x.npy", noise(40)[:0]), "x.npy", "shape (0, 24)"),
        (lambda: np.save("x.npy", np.ones((9, 24), int)), "x.npy", "are int64, not floating-point"),
        (not_finite, "x.npy", "x.npy: the feature at step 202, channel 7 is nan"),
        (lambda: np.save("x.npy", np.array([Payload()]), allow_pickle=True), "x.npy", "not a whole NumPy array"),
        (lambda: torch.save(Payload(), "x.pt"), "x.pt", "nothing in it was run"),
        (lambda: torch.save({"a": torch.ones(9, 24)}, "x.pt"), "x.pt", "must hold one tensor, not dict"),
        (lambda: Path("x.pt").write_bytes(b"PK no"), "x.pt", "x.pt: not a whole file of torch.save"),
        (lambda: Path("x.npy").write_bytes(b""), "x.npy", "not a whole NumPy array"),
        (lambda: Path("x.h5").write_bytes(b"not HDF5"), "x.h5", "not a whole HDF5 file"),
        (damaged_store, "x.h5", "x.h5: not a whole HDF5 file"),
        (lambda: h5py.File("x.h5", "w").close(), "x.h5", "no data set in it"),
        (lambda: store(stride=16), "x.h5", "video 'v': stride is 16, the run was trained on 32"),
        (lambda: store(fps=25), "x.h5", "fps is 25, the run was trained on 30"),
        (lambda: store(window=-1), "x.h5", "attribute window is -1"),
        (of_the_file, "x.h5", "stride is 16, the run was trained on 32"),
        (elsewhere, "x.h5", "its values lie in another file"),
        (lambda: Path("x.csv").write_text("1,2"), "x.csv", "features are read from .npy, .pt"),
        (lambda: None, "nowhere.npy", "nowhere.npy: no such file or folder"),
        (lambda: Path("empty").mkdir(), "empty", "no feature files in this folder"),
    ],
)  # fmt: skip
def test_features_that_do_not_fit_are_refused_in_one_line(
    work: Path, capsys: pytest.CaptureFixture[str], make: Any, path: str, words: str
) -> None:
    make()
    assert words in refused(capsys, "--features", path)
    assert not Path("payload-ran").exists()


def test_options_that_contradict_are_refused_in_one_line(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(fps=30.0, duration=50.0)
    np.save("v.npy", noise(40))
    assert "duration is 50, the command or call says 60" in refused(capsys, "--features", "x.h5", "--duration", "60")
    assert "stride is 16, the run was trained on 32" in refused(capsys, "--features", "v.npy", "--stride", "16")
    assert "fps is 0, but must be positive" in refused(capsys, "--features", "v.npy", "--fps", "0")
    assert "drawn as .svg" in refused(capsys, "--features", "v.npy", "--timeline", "x.png")
    assert "uses no external scores" in refused(capsys, "--features", "v.npy", "--scores", "x.json")
    assert "multiple of the coarsest stride" in refused(capsys, "--features", "v.npy", "--steps", "7")
    Path("two").mkdir()
    Path("many").mkdir()
    for number in range(21):
        shutil.copy("v.npy", f"many/{number}.npy")
    assert "up to 20 videos, not 21" in refused(capsys, "--features", "many", "--timeline", "x.svg")
    for name in ("two/a.npy", "two/b.npy"):
        shutil.copy("v.npy", name)
    assert "one --duration for 2 videos" in refused(capsys, "--features", "two", "--duration", "9")
    torch.save(torch.ones(9, 24), "two/a.pt")
    assert "'a' is in two/a.npy too" in refused(capsys, "--features", "two")
    for wrong in (["--features", "v.npy", "--set", "seed=1"], []):
        assert "detect takes a RUN, or --checkpoint and --features" in refused(capsys, *wrong)
    assert "detect takes a RUN, or --checkpoint and what else is for files" in refused(capsys, THUMOS)


def change_record(**changes: object) -> None:
    """As somebody does who means it: without the seal."""
    write_json("run/run.json", read_json("run/run.json") | changes)


def test_parameters_and_records_that_changed_by_themselves_are_refused(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("v.npy", noise(40))
    for name, before, after in (("params.yaml", "fps: 30.0", "fps: 31.0"), ("run.json", "class_001", "class_0O1")):
        whole = Path(f"run/{name}").read_text()
        assert before in whole
        Path(f"run/{name}").write_text(whole.replace(before, after))
        assert f"run/{name}: damaged" in refused(capsys, "--features", "v.npy")
        Path(f"run/{name}").write_text(whole)
    assert detect("--features", "v.npy")


def test_an_unknown_frame_rate_must_be_given(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = Path("run/params.yaml").read_text()
    Path("run/params.yaml").write_text(params.replace("fps: 30.0", "fps: null"))
    change_record(files={})
    np.save("v.npy", noise(40))
    assert "know the fps; give it (--fps)" in refused(capsys, "--features", "v.npy")
    assert detect("--features", "v.npy", "--fps", "25")


def test_a_folder_that_is_no_trained_run_is_refused_with_what_it_lacks(
    work: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("v.npy", noise(40))
    change_record(classes=None)
    assert "has no class names" in refused(capsys, "--features", "v.npy")
    annotations = str(trained / "data" / "thumos14-sample" / "annotations.json")
    assert detect("--features", "v.npy", "--classes", annotations)
    Path("detections.json").unlink()
    change_record(classes=["a", "b"])
    assert "2 class names, the run's parameters say 20" in refused(capsys, "--features", "v.npy")
    Path("run/run.json").unlink()
    assert "run: has no run.json" in refused(capsys, "--features", "v.npy")
    Path("official.pt").write_bytes(b"anything")
    assert "import-checkpoint" in refused(capsys, "--checkpoint", "official.pt", "--features", "v.npy")
    assert "nowhere: has no checkpoint" in refused(capsys, "--checkpoint", "nowhere", "--features", "v.npy")


def test_without_external_scores_segments_are_actions_and_the_command_says_so(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder,) = (trained / "results" / "runs").glob(f"{ACTIVITYNET}-*")
    np.save("v.npy", noise(90))
    assert {row["label"] for row in detect("--checkpoint", str(folder), "--features", "v.npy")["v"]} == {"action"}
    assert "all are called 'action'" in capsys.readouterr().err
    detector = rdfa.load(folder)
    best = detector.detect(noise(90), scores={detector.classes[3]: 0.9, detector.classes[8]: 0.4})
    assert {segment.label for segment in best} == {detector.classes[3], detector.classes[8]}
    Path("scores.json").write_text('{"w": {"a": 1}}')
    Path("detections.json").unlink()
    message = refused(capsys, "--checkpoint", str(folder), "--features", "v.npy", "--scores", "scores.json")
    assert "lacks 1 of 1 videos, the first 'v'" in message
    Path("scores.json").write_text('{"v": {"a": 1}}')
    message = refused(capsys, "--checkpoint", str(folder), "--features", "v.npy", "--scores", "scores.json")
    assert "scores.json: video 'v': none of the run's 200 classes has a score" in message
    with pytest.raises(RdfaError, match="none of the run's 200 classes has a score"):
        detector.detect(noise(90), scores={"a": 1.0})


def test_a_long_stretched_video_is_not_read_whole(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder,) = (trained / "results" / "runs").glob(f"{ACTIVITYNET}-*")
    detector, features = rdfa.load(folder), noise(5000)
    whole = detector.detect(features)
    monkeypatch.setattr("rdfa.inference.passes.WHOLE_BYTES", 0)
    sparse = detector.detect(features)
    assert [s.label for s in sparse] == [s.label for s in whole]
    np.testing.assert_allclose([s[1:] for s in sparse], [s[1:] for s in whole], rtol=1e-3, atol=1e-3)


def test_the_api_refuses_what_does_not_fit(folder: Path) -> None:
    detector = rdfa.load(folder)
    with pytest.raises(RdfaError, match=r"features have shape \(9, 23\), the run needs \(T, 24\)"):
        detector.detect(np.ones((9, 23)))
    with pytest.raises(RdfaError, match="step 4, channel 2 is inf"):
        detector.detect(np.where(np.arange(9 * 24).reshape(9, 24) == 98, np.inf, 1.0))
    with pytest.raises(RdfaError, match="device 'gpu'"):
        rdfa.load(folder, device="gpu")
    with pytest.raises(AttributeError, match="nothing"):
        rdfa.nothing  # noqa: B018


def test_importing_rdfa_loads_no_torch_until_load_is_asked_for() -> None:
    script = "import sys, rdfa; assert 'torch' not in sys.modules; rdfa.load; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
