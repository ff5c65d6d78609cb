"""The other models in the same detector: their sizes, what padding may do, and what their optimiser decays."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from rdfa.models.detector import build, count_parameters
from rdfa.params import Composed, compose
from rdfa.schema import Run
from rdfa.training.schedule import optimizer
from tests.conftest import BASELINES, ROOT
from tests.models.test_detector import outputs, shaken

C, N, RANK = 512, 16, 32
EMBEDDING = 3 * (3200 * C + C * C) + 2 * 2 * C
NECK = 6 * 2 * C
HEADS = 2 * (2 * (3 * C * C + 2 * C)) + (3 * C + 1) * (20 + 2) + 6
SMALL = {"actionformer": ("model.block.window=5",)}


def thumos(model: str, variant: str, *overrides: str) -> Run:
    return compose(
        dataset="thumos14", model=model, variant=variant, scale="full", overrides=overrides, folder=ROOT / "params"
    ).run


def masked(tiny: Callable[..., Composed], model: str, variant: str, *overrides: str) -> Composed:
    settings = ("model.padding=masked", *SMALL.get(model, ()), *overrides)
    return tiny(model=model, variant=variant, overrides=settings)


def transformer() -> int:
    """Counted on ActionFormer's TransformerBlock: readers, q k v out, two layers, two norms, two scales."""
    return 3 * (3 * C + 2 * C) + 4 * (C * C + C) + (8 * C * C + 5 * C) + 2 * 2 * C + 2 * C


def vim() -> int:
    """Counted on mamba_simple.py, bimamba_type v2, expand 2, with MaskMambaBlock's norm and scale."""
    inner = 2 * C
    direction = 4 * inner + inner + inner * (RANK + 2 * N) + RANK * inner + inner + inner * N + inner
    return 2 * inner * C + 2 * direction + inner * C + 2 * C + C


@pytest.mark.parametrize(
    ("model", "variant", "per_block"),
    [
        ("actionmamba", "vim", vim()),
        ("actionformer", "paper", transformer()),
        ("convolution", "plain", 2 * 3 * C * 2 * C + 2 * C + C + 2 * C + C),
        ("temporalmaxer", "paper", 0),
    ],
)
def test_a_full_thumos_configuration_has_the_parameters_counted_by_hand(
    model: str, variant: str, per_block: int
) -> None:
    blocks = 2 + 5  # the stem's and the branch's: arch (2, 2, 5)
    assert count_parameters(build(thumos(model, variant))) == EMBEDDING + blocks * per_block + NECK + HEADS


def test_dbm_on_thumos_has_the_parameters_of_actionmamba() -> None:
    """Instantiated from ActionMamba's code: 20.34 million, 3.27 of them in the stem and 8.18 in the branch."""
    detector = build(thumos("actionmamba", "dbm"))
    assert round(count_parameters(detector) / 1e6, 2) == 20.34
    assert round(count_parameters(detector.backbone.stem) / 1e6, 2) == 3.27
    assert round(count_parameters(detector.backbone.branch) / 1e6, 2) == 8.18


@pytest.mark.parametrize(("model", "variant"), [*BASELINES, ("positions", "paper")])
def test_nothing_of_the_padding_reaches_a_valid_step(tiny: Callable[..., Composed], model: str, variant: str) -> None:
    with_positions = ("model.block.positions=true",) if model == "positions" else ()
    detector = shaken(masked(tiny, "actionformer" if with_positions else model, variant, *with_positions))
    features = torch.randn(1, 24, 40, generator=torch.Generator().manual_seed(2))
    short = outputs(detector, nn.functional.pad(features, (0, 4)), 40)
    long = outputs(detector, nn.functional.pad(features, (0, 56)), 40)
    dirty = outputs(detector, torch.cat([features, torch.randn(1, 24, 56)], dim=2), 40)
    begin_short = begin_long = 0
    for stride in (1, 2, 4):
        valid = 40 // stride
        expected = short[:, begin_short : begin_short + valid]
        torch.testing.assert_close(long[:, begin_long : begin_long + valid], expected, atol=1e-4, rtol=1e-4)
        begin_short, begin_long = begin_short + 44 // stride, begin_long + 96 // stride
    assert long[:, :40].std() > 0.01
    assert dirty.shape == long.shape


@pytest.mark.parametrize(
    ("model", "variant"), [("actionmamba", "dbm"), ("actionmamba", "vim"), ("temporalmaxer", "paper")]
)
def test_padding_leaks_where_the_original_code_lets_it(tiny: Callable[..., Composed], model: str, variant: str) -> None:
    """The same weights, with and without the padding's leaks."""
    leaky, tight = shaken(tiny(model=model, variant=variant)), shaken(masked(tiny, model, variant))
    features = torch.randn(1, 24, 40, generator=torch.Generator().manual_seed(2))
    with_leaks, without = (outputs(each, nn.functional.pad(features, (0, 56)), 40) for each in (leaky, tight))
    assert not torch.allclose(with_leaks[:, :40], without[:, :40], atol=1e-2)
    torch.testing.assert_close(outputs(leaky, features, 40), outputs(tight, features, 40))


@pytest.mark.parametrize(("model", "variant"), BASELINES)
def test_a_step_sees_as_far_as_its_block_says(tiny: Callable[..., Composed], model: str, variant: str) -> None:
    """Change one step of the features: how far the finest level of the backbone changes."""
    run = masked(tiny, model, variant)
    detector = shaken(run).double().eval()
    features, mask = torch.randn(1, 24, 96, dtype=torch.float64), torch.ones(1, 96, dtype=torch.bool)
    changed = features.clone()
    changed[:, :, 48] += 10
    with torch.inference_mode():
        before, after = (detector.backbone(x, mask)[0][0] for x in (features, changed))
    moved = ((before - after).abs().amax(2)[0] > 1e-12).nonzero()[:, 0]
    # Two embedding convolutions of width 3, then two blocks, each applied twice (the tiny runs' recurrence).
    reach = {"actionformer": 2 + 4 * (1 + 2), "convolution": 2 + 4 * 2, "temporalmaxer": 2}.get(model)
    if reach is None:
        assert 48 - int(moved.min()) > 14
        assert int(moved.max()) - 48 > 14
    else:
        assert (int(moved.min()), int(moved.max())) == (48 - reach, 48 + reach)


@pytest.mark.parametrize(("model", "variant"), BASELINES)
def test_weights_decay_and_biases_norms_and_scales_do_not(
    tiny: Callable[..., Composed], model: str, variant: str
) -> None:
    run = tiny(model=model, variant=variant).run
    detector = build(run)
    names = {id(parameter): name for name, parameter in detector.named_parameters()}
    decayed, free = (
        [names[id(p)] for p in group["params"]] for group in optimizer(detector, run.training).param_groups
    )
    assert sorted(decayed + free) == sorted(names.values())
    wrong = [name for name in decayed if "bias" in name or "norm" in name or "scale" in name]
    assert wrong == []
    kernels = ("proj.weight", "project.weight", "conv.weight", "conv_weight", "first.weight", "second.weight")
    assert [name for name in free if name.endswith(kernels)] == []


@pytest.mark.parametrize(("model", "variant"), BASELINES)
def test_every_parameter_gets_a_gradient(tiny: Callable[..., Composed], model: str, variant: str) -> None:
    detector = build(tiny(model=model, variant=variant).run)
    mask = torch.arange(64) < torch.tensor([[64], [40]])
    predictions = detector(torch.randn(2, 24, 64), mask)
    sum(x.square().sum() for x in (*predictions.logits, *predictions.offsets)).backward()
    assert [name for name, parameter in detector.named_parameters() if parameter.grad is None] == []
