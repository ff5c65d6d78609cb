"""Two runs trained once in seconds, and detectors with the weights that a seed draws."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import rdfa
from rdfa.cli import main
from rdfa.models.detector import build
from rdfa.params import Composed
from tests.conftest import ROOT, TINY

THUMOS, ACTIVITYNET = "thumos14-rdfa-paper-sample-s0", "activitynet-rdfa-paper-sample-s0"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with two trained runs and their own detections, not to be changed."""
    root = tmp_path_factory.mktemp("trained")
    (root / "params").symlink_to(ROOT / "params")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for run, more in ((THUMOS, ["--set=features.keep_every=2"]), (ACTIVITYNET, [])):
            settings = [*(f"--set={setting}" for setting in TINY), *more]
            for command in (["fetch"], ["train", "--no-tracking"], ["detect"]):
                assert main([*command, run, *settings]) == 0
    return root


@pytest.fixture
def folder(trained: Path) -> Path:
    """The folder of the trained THUMOS-14 run."""
    return next((trained / "results" / "runs").glob(f"{THUMOS}-*"))


@pytest.fixture
def random_detector(tiny: Callable[..., Composed]) -> Callable[..., rdfa.TrainedDetector]:
    """A detector of one class with random weights, in which every pyramid point gives one detection."""

    def make(*overrides: str) -> rdfa.TrainedDetector:
        every = ("num_classes=1", "detection.nms=none", "detection.max_segments=1000000", "detection.top_k=1000000")
        run = tiny(overrides=(*every, "detection.min_duration=0", *overrides)).run
        return rdfa.TrainedDetector(run=run, classes=("a",), model=build(run).eval())

    return make


def noise(steps: int, channels: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((steps, channels), dtype=np.float32)
