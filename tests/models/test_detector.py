"""The detector: shapes, parameters, switches, and what padding may do."""

from collections.abc import Callable

import pytest
import torch

from rdfa.models.backbone import Backbone
from rdfa.models.detector import Detector, build, count_parameters
from rdfa.models.pyramid import pyramid_points
from rdfa.ops.causal_convolution import causal_convolution
from rdfa.params import Composed, compose
from tests.conftest import ROOT

SWITCHES = (
    "model.block.aggregate=sum_outputs",
    "model.block.aggregate=concatenate",
    "model.stem.recurrence=1",
    "model.stem.recurrence=3",
    "model.stem.blocks=2",
    "model.stem.dual=none",
    "model.stem.dual=temporal",
    "model.stem.residual=previous",
    "model.stem.temporal_kernels=[4]",
    "model.stem.channel_kernels=[2]",
    "model.stem.channel_input=stem_input",
    "model.stem.channel_width=5",
    "model.branch.dual=none",
    "model.branch.dual=dual",
    "model.branch.kernels=[2, 3]",
    "model.padding=leaky",
    "model.embedding_layers=1",
    "model.heads.layers=2",
)


def outputs(detector: Detector, features: torch.Tensor, length: int) -> torch.Tensor:
    mask = torch.zeros(1, features.shape[2], dtype=torch.bool)
    mask[:, :length] = True
    with torch.inference_mode():
        logits, offsets, _ = detector.eval()(features, mask)
    return torch.cat([torch.cat(logits, dim=1), torch.cat(offsets, dim=1)], dim=2)


def shaken(run: Composed) -> Detector:
    """A detector whose every parameter matters, unlike at initialisation."""
    detector = build(run.run)
    torch.manual_seed(1)
    for parameter in detector.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return detector


def test_released_thumos_configuration_has_the_official_number_of_parameters() -> None:
    run = compose(dataset="thumos14", model="rdfa", variant="released", scale="full", folder=ROOT / "params").run
    assert count_parameters(build(run)) == 23_152_540


def test_recurrence_adds_no_parameters(tiny: Callable[..., Composed]) -> None:
    counts = {count_parameters(build(tiny(overrides=(f"model.stem.recurrence={r}",)).run)) for r in (1, 2, 6)}
    assert len(counts) == 1


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_ablation_switch_trains(tiny: Callable[..., Composed], switch: str) -> None:
    run = tiny(overrides=(switch,)).run
    detector = build(run)
    features, mask = torch.randn(2, 24, 64), torch.arange(64) < torch.tensor([[64], [40]])
    logits, offsets, masks = detector(features, mask)
    assert [tuple(level.shape) for level in logits] == [(2, 64, 20), (2, 32, 20), (2, 16, 20)]
    assert [tuple(level.shape) for level in offsets] == [(2, 64, 2), (2, 32, 2), (2, 16, 2)]
    (sum(level.sum() for level in logits) + sum(level.sum() for level in offsets)).backward()
    missing = [name for name, parameter in detector.named_parameters() if parameter.grad is None]
    assert missing == []
    assert int(masks[1][1].sum()) == 20


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_ablation_switch_changes_the_output(tiny: Callable[..., Composed], switch: str) -> None:
    plain, changed = tiny(), tiny(overrides=(switch,))
    assert plain.run.model != changed.run.model
    features = torch.randn(1, 24, 64, generator=torch.Generator().manual_seed(2))
    assert not torch.allclose(outputs(shaken(plain), features, 40), outputs(shaken(changed), features, 40), atol=1e-3)


def test_sharing_b_and_c_changes_the_released_variant(tiny: Callable[..., Composed]) -> None:
    features = torch.randn(1, 24, 64, generator=torch.Generator().manual_seed(2))
    own = shaken(tiny(variant="released", overrides=("model.block.share_bc=false",)))
    shared_with_first = shaken(tiny(variant="released"))
    assert not torch.allclose(outputs(own, features, 40), outputs(shared_with_first, features, 40), atol=1e-4)


def test_nothing_of_the_padding_reaches_a_valid_step_in_the_paper_variant(tiny: Callable[..., Composed]) -> None:
    for switch in ("model.stem.channel_width=1", "model.stem.channel_width=7", "model.branch.dual=dual"):
        detector = shaken(tiny(overrides=(switch,)))
        features = torch.randn(1, 24, 40)
        short = outputs(detector, torch.nn.functional.pad(features, (0, 4)), 40)
        long = outputs(detector, torch.nn.functional.pad(features, (0, 56)), 40)
        at = 0
        for stride in (1, 2, 4):
            valid, width = 40 // stride, 44 // stride
            start = sum(96 // s for s in (1, 2, 4) if s < stride)
            torch.testing.assert_close(long[:, start : start + valid], short[:, at : at + valid], atol=1e-4, rtol=1e-4)
            at += width


def test_padding_leaks_in_the_released_variant_as_in_the_released_code(tiny: Callable[..., Composed]) -> None:
    detector = shaken(tiny(variant="released"))
    features = torch.nn.functional.pad(torch.randn(1, 24, 40), (0, 24))
    more = torch.nn.functional.pad(features, (0, 32))
    assert not torch.allclose(outputs(detector, features, 40)[:, :40], outputs(detector, more, 40)[:, :40], atol=1e-4)


def test_reversed_convolution_equals_flipping_twice() -> None:
    x, weight, bias = torch.randn(2, 9, 3), torch.randn(3, 4), torch.randn(3)
    flipped = causal_convolution(x.flip(1), weight, bias).flip(1)
    torch.testing.assert_close(causal_convolution(x, weight, bias, reverse=True), flipped)


def test_causal_convolution_sees_no_future() -> None:
    x, weight, bias = torch.randn(1, 9, 2), torch.randn(2, 3), torch.randn(2)
    changed = x.clone()
    changed[:, 5:] += 1
    before, after = causal_convolution(x, weight, bias), causal_convolution(changed, weight, bias)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_points_lie_on_every_levels_stride() -> None:
    fine, coarse = pyramid_points(8, [(0, 4), (4, 10000)])
    assert fine[:, 0].tolist() == list(range(8))
    assert coarse.tolist() == [[0, 4, 10000, 2], [2, 4, 10000, 2], [4, 4, 10000, 2], [6, 4, 10000, 2]]


def test_the_same_seed_builds_the_same_weights_whatever_was_drawn_before(tiny: Callable[..., Composed]) -> None:
    run = tiny().run
    first = build(run).state_dict()
    torch.rand(17)
    again = build(run).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = build(tiny(seed=1).run).state_dict()
    assert not torch.equal(first["backbone.embedding.convs.0.weight"], other["backbone.embedding.convs.0.weight"])


def test_backbone_keeps_lengths_of_a_pyramid(tiny: Callable[..., Composed]) -> None:
    run = tiny().run
    levels, masks = Backbone(24, run.model)(torch.randn(2, 24, 64), torch.ones(2, 64, dtype=torch.bool))
    assert [level.shape[1] for level in levels] == [mask.shape[1] for mask in masks] == [64, 32, 16]


def test_checkpointed_recurrence_gives_the_same_gradients_and_keeps_less(tiny: Callable[..., Composed]) -> None:
    def step(checkpointed: bool) -> tuple[list[torch.Tensor], int]:
        settings = ("model.drop_path=0.5", f"runtime.checkpoint_recurrence={str(checkpointed).lower()}")
        detector, kept = build(tiny(overrides=settings).run), 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            predictions = detector(torch.randn(2, detector.backbone.embedding.convs[0].in_channels, 64), mask)
        total = sum(x.square().sum() for x in (*predictions.logits, *predictions.offsets))
        total.backward()
        return [p.grad for p in detector.parameters() if p.grad is not None], kept

    mask = torch.arange(64) < torch.tensor([[64], [40]])
    (plain, much), (recomputed, little) = step(False), step(True)
    assert len(plain) == len(recomputed) > 0
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))
    assert little < much
