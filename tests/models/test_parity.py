"""The `released` variant against outputs and gradients of the official code (../shared/golden/rdfa_small)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rdfa.models.detector import Detector
from rdfa.models.official import from_official
from rdfa.models.pyramid import pyramid_points
from rdfa.models.s6 import FABiS6
from rdfa.params import compose
from rdfa.schema import Run
from rdfa.training.losses import Losses, Normalizer, detection_losses
from rdfa.training.targets import assign
from tests.conftest import ROOT

pytestmark = pytest.mark.parity
TOLERANCE = 2e-5
OFFICIAL = (
    "features.dimension=48",
    "model.width=32",
    "model.heads.width=32",
    "windows.max_length=96",
    "model.stem.channel_width=24",
    "num_classes=5",
    "model.regression_ranges=[[0, 4], [4, 8], [8, 16], [16, 10000]]",
    "model.drop_path=0",
)


@pytest.fixture
def golden(shared: Path) -> Path:
    return shared / "golden" / "rdfa_small"


def released() -> Run:
    folder = ROOT / "params"
    return compose(
        dataset="thumos14", model="rdfa", variant="released", scale="full", overrides=OFFICIAL, folder=folder
    ).run


def load(path: Path) -> dict[str, Tensor]:
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def official_detector(golden: Path, state: str) -> Detector:
    detector = Detector(48, 5, released().model)
    ours, surplus = from_official(load(golden / f"state_{state}.npz"), detector.state_dict())
    assert surplus == []
    detector.load_state_dict(ours)
    return detector


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.detach() - expected).abs().max() / expected.abs().max())


def targets(io: dict[str, Tensor], radius: float, segments: str = "") -> tuple[Tensor, Tensor]:
    points = torch.cat(pyramid_points(96, released().model.regression_ranges))
    pairs = [assign(points, io[f"gt_segments_b{b}"], io[f"gt_labels_b{b}"], 5, radius) for b in (0, 1)]
    return torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])


@pytest.mark.parametrize(("state", "file"), [("init", "io_init"), ("pert", "io_pert"), ("pert", "io_len128_pert")])
def test_logits_and_offsets_equal_the_official_ones_on_every_level(golden: Path, state: str, file: str) -> None:
    io = load(golden / f"{file}.npz")
    with torch.inference_mode():
        predictions = official_detector(golden, state).eval()(io["x"], io["mask"][:, 0].bool())
    errors = {}
    for level in range(4):
        errors[f"logits {level}"] = error(predictions.logits[level], io[f"cls_logits_l{level}"])
        errors[f"offsets {level}"] = error(predictions.offsets[level], io[f"offsets_l{level}"])
        mask = io[f"mask_l{level}"].bool().reshape(predictions.masks[level].shape)
        assert torch.equal(predictions.masks[level], mask)
    print(file, "largest relative error", max(errors.values()))
    assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize(("name", "kernels"), [("k1", (4,)), ("k3", (2, 3, 4))])
def test_fa_bi_s6_block_equals_the_official_one(golden: Path, name: str, kernels: tuple[int, ...]) -> None:
    arrays = load(golden / "fabs6_block.npz")
    params = released().model.block
    block = FABiS6(24, kernels, params)
    prefix = "backbone.branch_module.blocks.0.mamba."
    official = {prefix + key.removeprefix(f"{name}_param_"): v for key, v in arrays.items() if f"{name}_param" in key}
    named = {f"backbone.branch.0.dual.temporal.{key}": value for key, value in block.state_dict().items()}
    ours, surplus = from_official(official, named | {"offset_head.scales": torch.zeros(1)})
    assert surplus == []
    block.load_state_dict({key.removeprefix("backbone.branch.0.dual.temporal."): value for key, value in ours.items()})
    with torch.inference_mode():
        found = block(arrays[f"{name}_input"])
    print(name, "largest relative error", error(found, arrays[f"{name}_output"]))
    assert error(found, arrays[f"{name}_output"]) <= TOLERANCE


def test_points_and_label_assignment_equal_the_official_ones(golden: Path) -> None:
    io = load(golden / "io_pert.npz")
    for level, points in enumerate(pyramid_points(96, released().model.regression_ranges)):
        assert torch.equal(points, io[f"points_l{level}"])
    classes, offsets = targets(io, 1.5)
    assert torch.equal(classes, io["cls_targets"])
    assert torch.equal(offsets, io["reg_targets"])


@pytest.mark.parametrize("state", ["init", "pert"])
def test_losses_and_true_gradients_equal_the_official_ones(golden: Path, state: str) -> None:
    io = load(golden / f"io_{state}.npz")
    detector = official_detector(golden, state).train()
    features = io["x"].clone().requires_grad_()
    losses = official_losses(detector, features, io)
    assert losses.positives == int(io["loss_num_pos"])
    for found, expected in (("classification", "cls"), ("regression", "reg"), ("total", "final")):
        torch.testing.assert_close(getattr(losses, found).detach(), io[f"loss_{expected}"], rtol=1e-6, atol=1e-7)
    losses.total.backward()
    gradients = load(golden / f"grads_true_{state}.npz")
    assert features.grad is not None
    errors = {"input": error(features.grad, gradients.pop("__input__"))}
    expected_gradients, _ = from_official(gradients, detector.state_dict())
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None
        errors[name] = error(parameter.grad, expected_gradients[name])
    print(state, "largest relative error of a gradient", max(errors.values()))
    assert max(errors.values()) <= TOLERANCE, max(errors, key=lambda name: errors[name])


def official_losses(detector: Detector, features: Tensor, io: dict[str, Tensor]) -> Losses:
    classes, offsets = targets(io, 1.5)
    params = released().training.loss
    predictions = detector(features, io["mask"][:, 0].bool())
    return detection_losses(predictions, classes, offsets, Normalizer(params), params)
