"""Runs of detectors on a map of proposals that are small enough for seconds."""

from collections.abc import Callable

import pytest

from rdfa.params import Composed, compose
from tests.conftest import ROOT

SIZES = (
    "source.sample.train_videos=6",
    "source.sample.test_videos=4",
    "features.dimension=24",
    "features.stride=32",
    "windows.max_length=32",
    "model.steps=32",
    "model.durations=16",
    "model.base.width=16",
    "model.confidence.aligned=16",
    "model.confidence.width=8",
    "model.alignment.samples=4",
    "training.epochs=2",
    "training.schedule_epochs=2",
    "training.batch_size=4",
)
WIDTH, RCL = ("model.alignment.width=8",), ("model.refine.iterations=2", "model.sampling.coordinates=50")
GRAPH = ("model.graph.groups=4", "model.graph.group_width=2")
OF_DETECTOR = {
    ("bmn", "plain"): WIDTH,
    ("bmn", "rcl"): (*WIDTH, *RCL),
    ("gtad", "plain"): (*GRAPH, "model.alignment.context=2"),
    ("gtad", "rcl"): (*GRAPH, *WIDTH, *RCL),
}
"""Every detector on a map of proposals."""

Small = Callable[..., Composed]


@pytest.fixture
def small() -> Small:
    """Compose a run that trains in seconds: `small(model, variant, dataset=..., overrides=(...))`."""

    def make(
        model: str = "bmn", variant: str = "plain", dataset: str = "thumos14_tsn", overrides: tuple[str, ...] = ()
    ) -> Composed:
        settings = (*SIZES, *OF_DETECTOR[model, variant], *overrides)
        return compose(
            dataset=dataset, model=model, variant=variant, scale="sample", overrides=settings, folder=ROOT / "params"
        )

    return make
