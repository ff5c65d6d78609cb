"""Videos longer than one pass: cut without loss or repetition, close to a whole pass, in memory that does not grow."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rdfa
from rdfa.data.spans import spans
from rdfa.errors import RdfaError
from rdfa.files import write_json
from rdfa.models.detector import build
from rdfa.ops.segments import tiou_matrix
from rdfa.params import as_plain, compose
from tests.conftest import ROOT, TINY
from tests.inference.conftest import noise

Make = Callable[..., rdfa.TrainedDetector]


@given(
    total=st.integers(1, 3000),
    passes=st.integers(1, 20),
    overlap=st.floats(0, 0.99),
    coarsest=st.sampled_from([1, 4, 32]),
)
def test_every_step_is_in_the_core_of_exactly_one_pass_that_sees_around_it(
    total: int, passes: int, overlap: float, coarsest: int
) -> None:
    length = passes * coarsest
    plan = spans(total, length, overlap, coarsest)
    owned = np.concatenate([np.arange(span.core_start, span.core_stop) for span in plan])
    np.testing.assert_array_equal(owned, np.arange(total))
    for span in plan:
        assert span.stop - span.start <= length
        assert span.start % coarsest == span.core_start % coarsest == 0
        seen_before, seen_after = span.core_start - span.start, span.stop - span.core_stop
        least = min(overlap * length / 2 - 1.5 * coarsest, (length - 3 * coarsest) / 2)
        assert span.start == 0 or seen_before >= least
        assert span.stop == total or seen_after >= least


def rows(segments: list[rdfa.Segment]) -> np.ndarray:
    return np.array([[each.start, each.end, each.score] for each in segments]).reshape(-1, 3)


@settings(max_examples=25, deadline=None)
@given(steps=st.integers(1, 700), overlap=st.sampled_from([0.5, 0.625, 0.8]))
def test_a_detector_that_looks_around_itself_finds_in_passes_exactly_what_it_finds_at_once(
    local: rdfa.TrainedDetector, steps: int, overlap: float
) -> None:
    # No recurrence: a point depends on at most 25 steps on each side, less than the 32 that an overlap of a half gives.
    features = noise(steps)
    whole = rows(local.detect(features, steps=1024))
    cut = rows(local.detect(features, steps=128, overlap=overlap))
    points = sum(-(-steps // stride) for stride in (1, 2, 4))
    assert len(cut) == len(whole) <= points
    assert len(whole) > steps / 8 or steps < 32  # points whose two offsets are 0 make no segment
    if len(whole) == 0:
        return
    distance = np.abs(cut[:, None] - whole[None]).max(2)
    assert distance.min(1).max() < 1e-3  # seconds and scores; a step is 1.07 s
    assert distance.min(0).max() < 1e-3


@pytest.fixture(scope="module")
def local() -> rdfa.TrainedDetector:
    every = ("num_classes=1", "detection.nms=none", "detection.max_segments=1000000", "detection.top_k=1000000")
    overrides = (*TINY, *every, "detection.min_duration=0", "model.stem.blocks=0", "model.branch.dual=none")
    run = compose(
        dataset="thumos14",
        model="rdfa",
        variant="paper",
        scale="sample",
        overrides=overrides,
        folder=ROOT / "params",
    ).run
    return rdfa.TrainedDetector(run=run, classes=("a",), model=build(run).eval())


def test_a_video_that_fits_is_seen_in_one_pass_whatever_the_overlap(random_detector: Make) -> None:
    detector = random_detector()
    for steps in (1, 37, 64):
        features = noise(steps)
        assert detector.detect(features, overlap=0) == detector.detect(features, steps=256, overlap=0.9)


def test_a_trained_recurrent_detector_finds_nearly_the_same_in_passes_as_at_once(folder: Path, trained: Path) -> None:
    detector = rdfa.load(folder)
    with h5py.File(trained / "data" / "thumos14-sample" / "features.h5") as file:
        features = np.concatenate([array[()] for array in file["Test"].values()])
    assert len(features) > 8 * 64
    many = detector.run.detection.model_copy(update={"max_segments": 400})
    detector = rdfa.TrainedDetector(
        run=detector.run.model_copy(update={"detection": many}), classes=detector.classes, model=detector.model
    )
    whole = detector.detect(features, steps=4096)
    agreement = {overlap: agree(whole, detector.detect(features, overlap=overlap)) for overlap in (0.0, 0.5)}
    # Measured: 100 % and 0.0002 with passes that overlap by a half; 86 % and 0.007 with passes that do not.
    assert agreement[0.5][0] >= 0.99
    assert agreement[0.5][1] < 0.002
    assert agreement[0.0][0] < 0.95  # else this video could not show what the overlap is for


def agree(whole: list[rdfa.Segment], cut: list[rdfa.Segment]) -> tuple[float, float]:
    """Of the surer half of `whole`: the share with a like segment (tIoU > 0.9) of its class in `cut`, and the largest
    difference of the scores of those."""
    first = whole[: len(whole) // 2]
    overlap = tiou_matrix(np.array([s[2:] for s in first]), np.array([s[2:] for s in cut]))
    overlap *= np.array([s.label for s in first])[:, None] == np.array([s.label for s in cut])[None]
    best = overlap.argmax(1)
    like = overlap.max(1) > 0.9
    differences = np.abs(np.array([s.score for s in first]) - np.array([s.score for s in cut])[best])
    return float(like.mean()), float(differences[like].max())


PROGRAM = """
import sys
from pathlib import Path
import numpy as np
import rdfa
from rdfa.data.feature_files import Timing, open_features
from rdfa.models.detector import build
from rdfa.params import read_run
run = read_run(Path("params.yaml"))
detector = rdfa.TrainedDetector(run=run, classes=("a",), model=build(run).eval())
(video,) = open_features(Path(sys.argv[1]), run.features.dimension)
segments, _, _ = detector.detect_video(video, Timing(fps=30.0), None, detector.passes())
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(len(segments), peak.split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory is read from Linux's /proc")
def test_peak_memory_does_not_grow_with_the_length_of_the_video(random_detector: Make, tmp_path: Path) -> None:
    # VmHWM and not ru_maxrss: Linux lets a child begin with the maximum of the process that started it.
    run = random_detector("features.dimension=1024", "windows.max_length=512", "detection.max_segments=200").run
    write_json(tmp_path / "params.yaml", as_plain(run))  # JSON is YAML
    peaks = {}
    for steps in (8192, 32768):
        with h5py.File(tmp_path / f"{steps}.h5", "w") as file:
            array = file.create_dataset("v", (steps, 1024), dtype=np.float16, chunks=(512, 1024))
            array[:] = np.tile(noise(512, 1024), (steps // 512, 1))
        command = [sys.executable, "-c", PROGRAM, f"{steps}.h5"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found, peak = map(int, done.stdout.split())
        assert found > steps // 512 * 100
        peaks[steps] = peak / 1024
    # The longer video's features are 96 MiB more than the shorter one's as float32, and 48 MiB more in the file.
    assert peaks[32768] - peaks[8192] < 12


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": 63}, "multiple of the coarsest stride 4"),
        ({"steps": 0}, "multiple of the coarsest stride 4"),
        ({"overlap": 1.0}, "below 1"),
        ({"overlap": -0.1}, "at least 0"),
    ],
)
def test_passes_that_cannot_be_are_refused(random_detector: Make, arguments: dict[str, float], words: str) -> None:
    with pytest.raises(RdfaError, match=words):
        random_detector().detect(noise(10), **arguments)
