"""From the detector's outputs to segments in seconds against the official code (../shared/golden/rdfa_small)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rdfa.data.annotations import Video
from rdfa.data.features import FeatureStore, FeatureWriter
from rdfa.data.windows import Grid
from rdfa.evaluation.detect import decode, detect, suppress
from rdfa.models.detector import Predictions
from rdfa.models.pyramid import pyramid_points
from rdfa.schema import Run
from tests.comparisons import Compare, Golden
from tests.models.test_parity import LEVELS, TOLERANCE, load, official_detector, released

pytestmark = [pytest.mark.parity, pytest.mark.evaluation]

POST, IO, STATE = (f"rdfa_small/{name}_pert.npz" for name in ("postproc", "io", "state"))
SETTINGS: dict[str, dict[str, Any]] = {
    "softmc": {},  # what the released THUMOS-14 configuration asks
    "softvote": {"multiclass": False},
    "hardmc": {"nms": "hard"},
    "hardvote": {"nms": "hard", "multiclass": False},
    "softmc_topk40": {"top_k": 40, "score_threshold": 0.2, "max_segments": 25},
}
VIDEOS = ((96, 30.0, 14.1), (61, 25.0, 9.9))
"""Steps, frames per second and seconds of each."""
ROUNDING = 1e-6
"""Sigmoids, votes and seconds are a few float32 roundings apart; all else is equal to the bit."""
CASES = [pytest.param(name, video, id=f"{name}-v{video}") for name in SETTINGS for video in (0, 1)]


def asked(name: str) -> Run:
    run = released()
    features = run.features.model_copy(update={"stride": 4, "window": 16})
    return run.model_copy(update={"features": features, "detection": run.detection.model_copy(update=SETTINGS[name])})


def expected(path: Path, name: str, stage: str, video: int) -> list[Any]:
    with np.load(path) as arrays:
        segments = {"raw": "segments", "nms": "grid_segments", "final": "segments_sec"}[stage]
        return [arrays[f"{name}_{stage}_{part}_v{video}"] for part in (segments, "scores", "labels")]


@pytest.mark.golden(POST, IO)
@pytest.mark.parametrize(("name", "video"), CASES)
def test_decoding_equals_the_official_one(golden: Golden, compare: Compare, name: str, video: int) -> None:
    io, run = load(golden(IO)), asked(name)
    parts = ("cls_logits", "offsets", "mask")
    outputs = Predictions(*(tuple(io[f"{part}_l{level}"][video : video + 1] for level in LEVELS) for part in parts))
    found = decode(outputs, pyramid_points(96, run.model.regression_ranges), run.detection)
    for part, values, truth in zip(
        ("segments", "scores", "labels"), found, expected(golden(POST), name, "raw", video), strict=True
    ):
        compare(f"decoding {name}, video {video}: {part}", values, truth, ROUNDING if part == "scores" else 0)


@pytest.mark.golden(POST)
@pytest.mark.parametrize(("name", "video"), CASES)
def test_suppression_and_voting_equal_the_official_ones(
    golden: Golden, compare: Compare, name: str, video: int
) -> None:
    raw, kept = (expected(golden(POST), name, stage, video) for stage in ("raw", "nms"))
    segments, scores, labels = suppress((raw[0], raw[1], raw[2]), asked(name).detection)
    what = f"suppression {name}, video {video}"
    compare(f"{what}: segments", segments, kept[0], ROUNDING if "vote" in name else 0)
    compare(f"{what}: scores", scores, kept[1], ROUNDING)  # the C library's expf may round otherwise
    compare(f"{what}: labels", labels, kept[2], 0)


@pytest.mark.golden(POST)
@pytest.mark.parametrize(("name", "video"), CASES)
def test_conversion_to_seconds_equals_the_official_one(golden: Golden, compare: Compare, name: str, video: int) -> None:
    (steps, *_), (seconds, *_) = (expected(golden(POST), name, stage, video) for stage in ("nms", "final"))
    _, fps, duration = VIDEOS[video]
    found = np.clip(Grid(stride=4, window=16, fps=fps).to_seconds(steps.astype(np.float64)), 0, duration)
    compare(f"seconds {name}, video {video}", found, seconds, ROUNDING)


@pytest.mark.golden(POST, IO, STATE)
@pytest.mark.parametrize("name", SETTINGS)
def test_whole_videos_give_the_official_detections(golden: Golden, compare: Compare, tmp_path: Path, name: str) -> None:
    io, run = load(golden(IO)), asked(name)
    with FeatureWriter(tmp_path / "features.h5") as writer:
        for row, (steps, fps, duration) in enumerate(VIDEOS):
            about = {"fps": fps, "stride": 4, "window": 16, "duration": duration, "encoder": "golden", "source": ""}
            writer.add(f"v{row}", "Test", io["x"][row, :, :steps].T.numpy(), **about)
    none = np.zeros((0, 2))
    videos = [Video(f"v{row}", "Test", duration, fps, none, ()) for row, (_, fps, duration) in enumerate(VIDEOS)]
    store, model = FeatureStore(tmp_path / "features.h5"), official_detector(golden(STATE))
    run = run.model_copy(update={"runtime": run.runtime.model_copy(update={"workers": 0})})
    found = detect(run, model, videos, "abcde", store, None, torch.device("cpu"))
    for video in (0, 1):
        own = found.video_index == video
        segments, scores, labels = expected(golden(POST), name, "final", video)
        what = f"end to end {name}, video {video}"
        compare(f"{what}: labels", found.label_index[own], labels, 0)
        compare(f"{what}: scores", found.scores[own], scores, TOLERANCE)
        compare(f"{what}: seconds", found.segments[own], segments, TOLERANCE)
