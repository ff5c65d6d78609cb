"""What several tests share: the project's root, the shared folder, and runs small enough for seconds."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")

from hypothesis import settings

from rdfa.params import Composed, compose
from tests.comparisons import compare, golden, pytest_terminal_summary

__all__ = ["compare", "golden", "pytest_terminal_summary"]

# A slow machine is no fault of the code: hypothesis would fail an example that takes more than 0.2 seconds.
settings.register_profile("rdfa", deadline=None)
settings.load_profile("rdfa")

ROOT = Path(__file__).resolve().parents[1]

TINY = (
    "source.sample.train_videos=8",
    "source.sample.test_videos=4",
    "features.dimension=24",
    "features.stride=32",
    "windows.max_length=64",
    "model.width=16",
    "model.heads.width=16",
    "model.block.state=4",
    "model.stem.recurrence=2",
    "model.regression_ranges=[[0, 4], [4, 8], [8, 10000]]",
    "training.epochs=3",
    "training.schedule_epochs=3",
    "training.warmup_epochs=1",
    "training.batch_size=2",
)

BASELINES = (
    ("actionmamba", "dbm"),
    ("actionmamba", "vim"),
    ("actionformer", "paper"),
    ("convolution", "plain"),
    ("temporalmaxer", "paper"),
)
"""Every other model and its variants."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> Callable[..., Composed]:
    """Compose a run that trains in seconds: `tiny(dataset=..., model=..., variant=..., overrides=(...))`."""

    def make(
        dataset: str = "thumos14",
        variant: str = "paper",
        seed: int = 0,
        overrides: tuple[str, ...] = (),
        model: str = "rdfa",
    ) -> Composed:
        width = ("model.stem.channel_width=16",) if variant == "released" else ()
        settings = [setting for setting in TINY if model == "rdfa" or not setting.startswith("model.block.")]
        return compose(
            dataset=dataset,
            model=model,
            variant=variant,
            scale="sample",
            seed=seed,
            overrides=(*settings, *width, *overrides),
            folder=ROOT / "params",
        )

    return make


@pytest.fixture
def shared() -> Path:
    """The folder of reference material beside the project; tests that need it skip where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("../shared is absent: no reference data to compare with")
    return folder
