"""Every switch of the ledger of fidelity changes what it says, and nothing else.

A run is taken to pieces (`tests.facets`); for each switch it is written down which pieces its two values tell apart.
All others must be equal to the bit: initial weights of what both models have, targets, losses, crops, detections, ...
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rdfa.identity import paths
from rdfa.params import Composed, flatten
from rdfa.reporting.fidelity import read_ledger
from tests.conftest import ROOT
from tests.facets import differing, facets, trained

Tiny = Callable[..., Composed]

WHOLE = {"outputs", "gradients", "outputs with padding"}
STEM = {"stem"} | WHOLE
STRUCTURE = {"parameters"}


@dataclass(frozen=True)
class Shown:
    """Two values of a parameter, and the facets in which the runs differ."""

    values: tuple[Any, Any]
    changes: set[str]
    given: tuple[str, ...] = ()
    """Other parameters, the same for both."""


DEMONSTRATIONS = {
    # Structure of the model: training, targets, losses, detection and evaluation stay, and what both models have
    # starts from the same weights. The embedding never changes.
    "model.block.aggregate": Shown(
        ("sum_maps", "concatenate"), STRUCTURE | STEM, given=("model.block.share_bc=false",)
    ),
    "model.block.share_bc": Shown(("false", "true"), STEM),
    "model.stem.channel_kernels": Shown(("[2, 4, 8]", "[2, 3, 4]"), STRUCTURE | STEM),
    "model.stem.channel_input": Shown(("temporal_output", "stem_input"), STEM),
    "model.stem.channel_width": Shown((1, 16), STRUCTURE | STEM),
    "model.stem.residual": Shown(("input", "previous"), STEM),
    "model.stem.dual": Shown(("dual", "temporal"), STRUCTURE | STEM),
    "model.branch.dual": Shown(("temporal", "dual"), STRUCTURE | WHOLE),
    "model.stem.blocks": Shown((1, 2), STRUCTURE | STEM),
    "model.stem.recurrence": Shown((4, 1), STEM),
    # A video without padding gives the same to the bit.
    "model.padding": Shown(
        ("masked", "leaky"), {"outputs with padding", "padding reaches valid steps", "padded length"}
    ),
    # The forward pass stays as it is, to the bit.
    "model.block.gradients": Shown(("exact", "official"), {"gradients"}),
    # Training: the model, its initial weights and forward pass, and the data stay.
    "training.loss.normalizer": Shown(("running", "constant"), {"losses of three steps"}),
    "training.decay_state": Shown(("false", "true"), {"decayed"}),
    "training.average.ramp": Shown(("true", "false"), {"averaged weights"}),
    "training.epochs": Shown((3, 2), set()),
    "training.test_looks_from": Shown(("null", 2), set()),
    # Inference.
    "detection.weights": Shown(
        ("averaged", "best_test"),
        set(),
        given=("training.test_looks_from=1", "training.learning_rate=0.03"),  # so fast that the first epoch is the best
    ),
    "evaluation.protocol": Shown(("activitynet", "thumos14"), {"metrics"}),
}

TRAINED = {
    # What only a training shows: again, all other pieces are equal to the bit. Metrics follow from the detections.
    "training.decay_state": {"plain weights", "averaged weights", "detections", "first losses"},
    "training.loss.normalizer": {"plain weights", "averaged weights", "detections", "first losses"},
    "training.average.ramp": {"averaged weights", "detections"},
    "training.epochs": {"plain weights", "averaged weights", "epochs", "detections"},
    "training.test_looks_from": {"best look's weights", "looks"},
    "detection.weights": {"detections"},  # of the same weights in the same folder: no second training
    "evaluation.protocol": {"metrics"},
}

CONTROLS = {
    # Not switches of the ledger: they show that the pieces that no switch above changes are looked at, too.
    "training.center_radius": Shown((1.5, 0), {"targets", "losses of three steps"}),
    "training.learning_rate": Shown((0.001, 0.01), {"learning rates"}),
    "training.batch_size": Shown((2, 4), {"order and crops"}),
    "detection.sigma": Shown((0.5, 0.9), {"detections"}),
    "model.path_scale": Shown((0.1, 0.2), {"initial weights"} | STEM),
    "model.embedding_kernel": Shown((3, 5), {"parameters", "embedding"} | STEM),
}

LEDGER = sorted({switch.parameter for point in read_ledger(ROOT / "params") for switch in point.switches})
ALL = {**DEMONSTRATIONS, **CONTROLS}


def pair(tiny: Tiny, parameter: str) -> list[Composed]:
    shown = ALL[parameter]
    return [tiny(variant="released", overrides=(*shown.given, f"{parameter}={value}")) for value in shown.values]


def test_every_switch_of_the_ledger_has_a_demonstration() -> None:
    assert sorted(DEMONSTRATIONS) == LEDGER


def test_every_piece_is_changed_by_something(tiny: Tiny) -> None:
    assert set().union(*(shown.changes for shown in ALL.values())) == facets(tiny().run).keys()


@pytest.mark.parametrize("parameter", ALL)
def test_a_switch_changes_what_it_says_and_nothing_else(tiny: Tiny, parameter: str) -> None:
    first, second = pair(tiny, parameter)
    before, after = flatten(first.run), flatten(second.run)
    assert {name for name in before if before[name] != after[name]} == {parameter}
    assert differing(facets(first.run), facets(second.run)) == ALL[parameter].changes


@pytest.mark.parametrize("parameter", TRAINED)
def test_a_switch_of_training_or_inference_changes_what_it_says_of_a_training(
    tiny: Tiny, tmp_path: Path, parameter: str
) -> None:
    first, second = pair(tiny, parameter)
    changed = differing(trained(first, tmp_path), trained(second, tmp_path))
    assert changed - ({"metrics"} if "detections" in changed else set()) == TRAINED[parameter]
    one_training = paths(first.run).folder == paths(second.run).folder
    assert one_training == (TRAINED[parameter] <= {"detections", "metrics"})
