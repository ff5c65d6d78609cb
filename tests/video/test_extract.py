"""`rdfa extract`: clips lie on the time grid of the data set, encoders are found, mistakes are told.

The tests of the time grid need nothing; those of whole files need PyAV, those of VideoMAE transformers.
"""

import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from rdfa.cli import main
from rdfa.data.features import FeatureStore
from rdfa.errors import RdfaError
from rdfa.video.encoders import find_encoder
from rdfa.video.frames import clips, resample

GRID = ["--stride", "4", "--window", "8"]


def numbered(count: int, fps: float) -> list[tuple[float, np.ndarray]]:
    return [(index / fps, np.full((1, 1, 3), index, dtype=np.uint8)) for index in range(count)]


def numbers(frames: Any) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in frames]


@pytest.mark.parametrize("fps", [10.0, 25.0, 30.0, 30000 / 1001])
def test_a_video_at_its_own_rate_keeps_every_frame_once(fps: float) -> None:
    assert numbers(resample(numbered(100, fps), fps, fps)) == list(range(100))


@pytest.mark.parametrize(("source", "wanted"), [(25, 30), (30, 10), (60, 25), (10, 25)])
def test_a_resampled_frame_is_the_nearest_in_time_and_the_duration_stays(source: int, wanted: int) -> None:
    found = numbers(resample(numbered(50, source), source, wanted))
    assert len(found) == round(50 / source * wanted)
    for index, frame in enumerate(found):
        nearest = min(range(50), key=lambda other: abs(Fraction(other, source) - Fraction(index, wanted)))
        assert abs(Fraction(frame, source) - Fraction(index, wanted)) == abs(
            Fraction(nearest, source) - Fraction(index, wanted)
        )


def test_uneven_frame_times_are_put_on_the_even_grid() -> None:
    frames = [(time, np.full((1, 1, 3), index, dtype=np.uint8)) for index, time in enumerate((0.0, 0.11, 0.5, 0.58))]
    assert numbers(resample(frames, 10, 10)) == [0, 1, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("count", "window", "stride"), [(16, 16, 4), (100, 16, 4), (101, 16, 8), (20, 3, 7), (5, 6, 1)]
)
def test_clips_are_the_windows_of_the_grid(count: int, window: int, stride: int) -> None:
    found = [numbers(clip) for clip in clips((frame for _, frame in numbered(count, 10)), window, stride)]
    starts = range(0, count - window + 1, stride)
    assert found == [list(range(start, start + window)) for start in starts]
    assert len(found) == max((count - window) // stride + 1, 0)


def film(path: Path, count: int = 60, fps: int = 25) -> None:
    """A lossless video whose frame i has the grey value 4 * i, and a red corner."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'rdfa[video]'")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "bgr0"
        for index in range(count):
            picture = np.full((24, 32, 3), 4 * index, dtype=np.uint8)
            picture[:4, :4] = (255, 0, 0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def middle(clip: np.ndarray) -> np.ndarray:
    """An encoder: grey value of first and last frame, the red and the blue of the corner, and the number of frames."""
    corner = clip[0, 0, 0]
    return np.array([clip[0, 12, 16, 0], clip[-1, 12, 16, 0], corner[0], corner[2], len(clip)], dtype=float)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    functions = {"middle": middle, "short": lambda clip: middle(clip)[: 1 + clip[0, 12, 16, 0] // 16], "number": 3}
    functions |= {"scalar": lambda clip: 1.0, "infinite": lambda clip: np.array([np.inf])}
    monkeypatch.setitem(sys.modules, "my_encoders", SimpleNamespace(**functions))  # type: ignore[misc]
    monkeypatch.chdir(tmp_path)
    return "my_encoders:middle"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["extract", *arguments, "--out", "out.h5"]) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("rdfa: error: ")
    assert len(message.splitlines()) == 1
    assert not list(Path().glob("*out.h5*"))
    return message


def test_features_of_a_file_are_those_of_its_windows(plugin: str) -> None:
    film(Path("a.mkv"))
    film(Path("b.mkv"), count=20)
    assert main(["extract", "a.mkv", "b.mkv", "--encoder", plugin, *GRID, "--out", "out.h5"]) == 0
    store = FeatureStore("out.h5")
    assert store.videos == ("a", "b")
    first = 4 * np.arange(0, 60 - 8 + 1, 4)
    expected = np.stack([first, first + 28, *(np.full(14, value) for value in (255, 0, 8))], axis=1)
    np.testing.assert_array_equal(store.read("a"), expected)
    about = store.attributes("a")
    assert (about.fps, about.stride, about.window, about.duration) == (25.0, 4, 8, 60 / 25)
    assert about.encoder == plugin
    assert len(about.source) == 64
    store.close()


def test_frames_are_resampled_to_the_rate_of_the_data_set(plugin: str) -> None:
    film(Path("a.mkv"))
    assert main(["extract", "a.mkv", "--encoder", plugin, *GRID, "--fps", "10", "--out", "out.h5"]) == 0
    store = FeatureStore("out.h5")
    assert store.shape("a") == ((24 - 8) // 4 + 1, 5)
    # Frame j at 10 per second is frame 2.5 j of the file, the earlier of two that are as near.
    assert store.read("a")[:, 0].tolist() == [4 * 10 * step for step in range(5)]
    assert store.attributes("a").duration == 2.4
    store.close()


def test_mistakes_with_videos_are_told_in_one_line(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    film(Path("a.mkv"))
    given = ["--encoder", plugin, *GRID]
    assert "nowhere.mkv: no such video file" in refused(capsys, "nowhere.mkv", *given)
    Path("text.mp4").write_text("not a video")
    assert "text.mp4: not a video file" in refused(capsys, "text.mp4", *given)
    film(Path("short.mkv"), count=7)
    assert "short.mkv: 7 frames at 25 per second are less than a window of 8" in refused(capsys, "short.mkv", *given)
    assert "extract needs --stride and --window" in refused(capsys, "a.mkv", "--encoder", plugin)
    assert "all must be positive" in refused(capsys, "a.mkv", *given, "--fps", "-1")
    Path("other").mkdir()
    film(Path("other/a.mkv"))
    assert "'a' is given twice" in refused(capsys, "a.mkv", "other/a.mkv", *given)
    assert "--weights is for the encoder 'videomae'" in refused(capsys, "a.mkv", *given, "--weights", "x")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RdfaError, match="torch finds no CUDA device"):
        find_encoder("videomae", tmp_path, "cuda")


def test_a_name_given_twice_is_refused_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other").mkdir()
    for name in ("a.mkv", "other/a.mkv"):
        Path(name).write_text("no video")
    assert "other/a.mkv: video 'a' is given twice" in refused(capsys, "a.mkv", "other/a.mkv", "--encoder", "any", *GRID)


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ("nobody", "no encoder 'nobody'; there is: videomae"),
        ("no_such_module:function", "cannot be loaded (No module named 'no_such_module')"),
        ("my_encoders:absent", "cannot be loaded"),
        ("my_encoders:number", "is not a function of a clip"),
        ("my_encoders:scalar", "a.mkv: the encoder gave () for clip 0, not a finite vector (C,)"),
        ("my_encoders:short", "the encoder gave (2,) for clip 1"),
        ("my_encoders:infinite", "the encoder gave (1,) for clip 0, not a finite vector"),
        ("videomae", "--weights is missing"),
    ],
)
def test_an_encoder_that_does_not_fit_is_told_in_one_line(
    plugin: str, capsys: pytest.CaptureFixture[str], encoder: str, words: str
) -> None:
    if encoder == "videomae":
        pytest.importorskip("transformers", reason="needs transformers: pip install 'rdfa[video]'")
    film(Path("a.mkv"))
    assert words in refused(capsys, "a.mkv", "--encoder", encoder, *GRID)


def test_a_package_offers_an_encoder_by_an_entry_point(
    plugin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film(Path("a.mkv"))
    about = tmp_path / "site" / "theirs-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[rdfa.encoders]\ntheirs = my_encoders:middle\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert main(["extract", "a.mkv", "--encoder", "theirs", *GRID, "--out", "out.h5"]) == 0
    store = FeatureStore("out.h5")
    assert store.attributes("a").encoder == "theirs"
    store.close()


@pytest.mark.parametrize("package", ["av", "transformers"])
def test_a_missing_extra_is_told_with_the_command(
    plugin: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what Python itself notes of a package that cannot be imported
    if package == "transformers":
        pytest.importorskip("av", reason="needs PyAV: pip install 'rdfa[video]'")
    encoder = "videomae" if package == "transformers" else plugin
    Path("a.mkv").write_text("never decoded")
    assert "pip install 'rdfa[video]'" in refused(capsys, "a.mkv", "--encoder", encoder, *GRID)


@pytest.fixture
def videomae(tmp_path: Path) -> Path:
    """A small VideoMAE with random weights, as the Hub would have it."""
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'rdfa[video]'")
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.VideoMAEConfig(image_size=32, patch_size=16, num_frames=8, **sizes)
    transformers.VideoMAEModel(config).save_pretrained(tmp_path / "mae")
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.VideoMAEImageProcessor(**size).save_pretrained(tmp_path / "mae")
    return tmp_path / "mae"


def test_videomae_gives_the_mean_of_its_last_tokens_for_each_window(plugin: str, videomae: Path) -> None:
    transformers = pytest.importorskip("transformers")
    film(Path("a.mkv"), count=24)
    arguments = ["a.mkv", "--encoder", "videomae", "--weights", str(videomae), *GRID, "--device", "cpu"]
    assert main(["extract", *arguments, "--out", "out.h5"]) == 0
    with h5py.File("out.h5") as file:
        found = file["videos"]["a"][()]
    assert found.shape == (5, 24)
    # Frame i is grey 4 i with a red corner: 24 x 32 pixels become 32 x 43, of which the middle 32 columns are seen.
    clip = np.stack([np.full((24, 32, 3), 4 * index, dtype=np.uint8) for index in range(4, 12)])
    clip[:, :4, :4] = (255, 0, 0)
    prepare = transformers.VideoMAEImageProcessor.from_pretrained(videomae)
    model = transformers.VideoMAEModel.from_pretrained(videomae).eval()
    with torch.no_grad():
        expected = model(prepare(list(clip), return_tensors="pt")["pixel_values"]).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(found[1], expected, rtol=1e-5, atol=1e-6)
    assert np.abs(np.diff(found, axis=0)).max() > 1e-3


def test_weights_that_are_no_whole_videomae_are_told_in_one_line(
    plugin: str, videomae: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    film(Path("a.mkv"))
    given = ["a.mkv", "--encoder", "videomae", *GRID, "--weights"]
    assert "nowhere: no such folder" in refused(capsys, *given, "nowhere")
    assert "sees 8 frames at a time, not 9: set --window" in refused(capsys, *given, "mae", "--window", "9")
    weights = load_file(videomae / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.bias")
    save_file(weights, videomae / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 weights of a VideoMAE, the first encoder.layer.1.output.dense.bias" in refused(
        capsys, *given, "mae"
    )
    (videomae / "model.safetensors").write_bytes(b"no")
    assert "mae: not a whole VideoMAE" in refused(capsys, *given, "mae")
    (videomae / "preprocessor_config.json").unlink()
    assert "mae: not a whole VideoMAE" in refused(capsys, *given, "mae")


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("payload-ran"),)


def test_pickled_weights_with_a_payload_are_refused_and_not_run(
    plugin: str, videomae: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film(Path("a.mkv"))
    (videomae / "model.safetensors").unlink()
    torch.save({"a": Payload()}, videomae / "pytorch_model.bin")
    given = ["a.mkv", "--encoder", "videomae", *GRID, "--weights", "mae"]
    assert "mae: not a whole VideoMAE" in refused(capsys, *given)
    assert not Path("payload-ran").exists()
