"""The `released` variant against outputs and gradients of the official code (../shared/golden/rdfa_small)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rdfa.models.detector import Detector
from rdfa.models.official import from_official
from rdfa.models.pyramid import pyramid_points
from rdfa.models.s6 import FABiS6
from rdfa.params import compose
from rdfa.schema import Run
from rdfa.training.losses import Losses, Normalizer, detection_losses
from rdfa.training.targets import assign
from tests.comparisons import Compare, Golden
from tests.conftest import ROOT

pytestmark = pytest.mark.parity
TOLERANCE = 2e-5
LEVELS = range(4)
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
FORWARD = [
    pytest.param("init", "io_init", 0, "full", id="init-full"),
    pytest.param("init", "io_init", 1, "padded", id="init-padded"),
    pytest.param("pert", "io_pert", 0, "full", id="pert-full"),
    pytest.param("pert", "io_pert", 1, "padded", id="pert-padded"),
    pytest.param("pert", "io_len128_pert", 0, "longer than trained", id="pert-longer"),
]
IO, STATES = (
    ("rdfa_small/io_init.npz", "rdfa_small/io_pert.npz"),
    ("rdfa_small/state_init.npz", "rdfa_small/state_pert.npz"),
)


def released() -> Run:
    folder = ROOT / "params"
    return compose(
        dataset="thumos14", model="rdfa", variant="released", scale="full", overrides=OFFICIAL, folder=folder
    ).run


def load(path: Path) -> dict[str, Tensor]:
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def official_detector(state: Path) -> Detector:
    detector = Detector(48, 5, released().model)
    ours, surplus = from_official(load(state), detector.state_dict())
    assert surplus == []
    detector.load_state_dict(ours)
    return detector


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.detach() - expected).abs().max() / expected.abs().max())


def targets(io: dict[str, Tensor], radius: float) -> tuple[Tensor, Tensor]:
    points = torch.cat(pyramid_points(96, released().model.regression_ranges))
    pairs = [assign(points, io[f"gt_segments_b{b}"], io[f"gt_labels_b{b}"], 5, radius) for b in (0, 1)]
    return torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])


@pytest.mark.golden(*IO, *STATES, "rdfa_small/io_len128_pert.npz")
@pytest.mark.parametrize(("state", "file", "row", "kind"), FORWARD)
def test_logits_and_offsets_equal_the_official_ones_on_every_level(
    golden: Golden, compare: Compare, state: str, file: str, row: int, kind: str
) -> None:
    io = load(golden(f"rdfa_small/{file}.npz"))
    detector = official_detector(golden(f"rdfa_small/state_{state}.npz")).eval()
    with torch.inference_mode():
        predictions = detector(io["x"], io["mask"][:, 0])
    for level in LEVELS:
        assert torch.equal(predictions.masks[level], io[f"mask_l{level}"])
        name = f"forward {state}, {kind} video, level {level}"
        compare(f"{name}: logits", predictions.logits[level][row], io[f"cls_logits_l{level}"][row], TOLERANCE)
        compare(f"{name}: offsets", predictions.offsets[level][row], io[f"offsets_l{level}"][row], TOLERANCE)


@pytest.mark.golden(*IO, *STATES)
@pytest.mark.parametrize("state", ["init", "pert"])
def test_embedding_stem_branch_and_neck_equal_the_official_ones(golden: Golden, compare: Compare, state: str) -> None:
    io = load(golden(f"rdfa_small/io_{state}.npz"))
    detector = official_detector(golden(f"rdfa_small/state_{state}.npz")).eval()
    seen = {}

    def keep(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda module, inputs, output: seen.update({name: output}))

    keep("embedding", detector.backbone.embedding)
    keep("stem", detector.backbone.stem[-1])
    keep("backbone", detector.backbone)
    keep("neck", detector.neck)
    with torch.inference_mode():
        detector(io["x"], io["mask"][:, 0])
    compare(f"embedding {state}", seen["embedding"].transpose(1, 2), io["embed_out"], TOLERANCE)
    compare(f"stem {state}", seen["stem"].transpose(1, 2), io["stem_out"], TOLERANCE)
    for level in LEVELS:
        branch, neck = seen["backbone"][0][level].transpose(1, 2), seen["neck"][level]
        compare(f"branch {state}, level {level}", branch, io[f"branch_feat_l{level}"], TOLERANCE)
        compare(f"neck {state}, level {level}", neck, io[f"neck_feat_l{level}"], TOLERANCE)


@pytest.mark.golden("rdfa_small/fabs6_block.npz")
@pytest.mark.parametrize(("name", "kernels"), [("k1", (4,)), ("k3", (2, 3, 4))])
def test_fa_bi_s6_block_equals_the_official_one(
    golden: Golden, compare: Compare, name: str, kernels: tuple[int, ...]
) -> None:
    arrays = load(golden("rdfa_small/fabs6_block.npz"))
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
    compare(f"FA-Bi-S6 block, kernels {kernels}", found, arrays[f"{name}_output"], TOLERANCE)


@pytest.mark.golden(*IO)
@pytest.mark.parametrize("state", ["init", "pert"])
def test_points_and_label_assignment_equal_the_official_ones(golden: Golden, compare: Compare, state: str) -> None:
    io = load(golden(f"rdfa_small/io_{state}.npz"))
    levels = pyramid_points(96, released().model.regression_ranges)
    for level, points in enumerate(levels):
        compare(f"points {state}, level {level}", points, io[f"points_l{level}"], 0)
    empty = assign(torch.cat(levels), torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), 5, 1.5)
    cases = {"": targets(io, released().training.center_radius), "_nocenter": targets(io, 0), "_empty": empty}
    for case, (classes, offsets) in cases.items():
        compare(f"labels {state}{case}: classes", classes, io[f"cls_targets{case}"], 0)
        compare(f"labels {state}{case}: offsets", offsets, io[f"reg_targets{case}"], 0)


@pytest.mark.golden(*IO, *STATES, "rdfa_small/grads_true_init.npz", "rdfa_small/grads_true_pert.npz")
@pytest.mark.parametrize("state", ["init", "pert"])
def test_losses_and_true_gradients_equal_the_official_ones(golden: Golden, compare: Compare, state: str) -> None:
    io = load(golden(f"rdfa_small/io_{state}.npz"))
    detector = official_detector(golden(f"rdfa_small/state_{state}.npz")).train()
    features = io["x"].clone().requires_grad_()
    losses = official_losses(detector, features, io)
    normalizer = Normalizer(released().training.loss).update(losses.positives)
    compare(f"loss {state}: positives", losses.positives, io["loss_num_pos"], 0)
    compare(f"loss {state}: normaliser", normalizer, io["loss_normalizer"], 1e-15)
    for found, expected in (("classification", "cls"), ("regression", "reg"), ("total", "final")):
        compare(f"loss {state}: {found}", getattr(losses, found), io[f"loss_{expected}"], 1e-6)
    losses.total.backward()
    gradients = load(golden(f"rdfa_small/grads_true_{state}.npz"))
    compare(f"true gradients {state}: input", features.grad, gradients.pop("__input__"), TOLERANCE)
    expected_gradients, surplus = from_official(gradients, detector.state_dict())
    assert surplus == []
    found_gradients = dict(detector.named_parameters())
    assert found_gradients.keys() == expected_gradients.keys()
    errors = {}
    for name, parameter in found_gradients.items():
        assert parameter.grad is not None
        errors[name] = error(parameter.grad, expected_gradients[name])
    worst = max(errors, key=lambda name: errors[name])
    what = f"true gradients {state}: {len(errors)} parameters, worst {worst}"
    compare(what, found_gradients[worst].grad, expected_gradients[worst], TOLERANCE)


def official_losses(detector: Detector, features: Tensor, io: dict[str, Tensor]) -> Losses:
    params = released().training
    classes, offsets = targets(io, params.center_radius)
    predictions = detector(features, io["mask"][:, 0])
    return detection_losses(predictions, classes, offsets, Normalizer(params.loss), params.loss)
