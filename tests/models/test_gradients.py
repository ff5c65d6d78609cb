"""Gradients of every block against numerical differences in float64, with the reference scan."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from rdfa.models.backbone import AffineDropPath, BranchBlock, Dual, Embedding, FeedForwardPath, StemBlock, halve
from rdfa.models.detector import Detector
from rdfa.models.heads import ClassHead, Neck, OffsetHead
from rdfa.models.mixers import mixer
from rdfa.models.s6 import FABiS6
from rdfa.ops.causal_convolution import causal_convolution
from rdfa.ops.selective_scan import use_backend
from rdfa.params import compose
from rdfa.schema import S6, Attention, Model
from rdfa.training.losses import Normalizer, detection_losses
from tests.conftest import BASELINES, ROOT

MASK = torch.tensor([[True] * 8, [True] * 5 + [False] * 3])
VARIANTS = ("paper", "released")
MIXERS = [(model, variant) for model, variant in BASELINES if model != "temporalmaxer"]
SETTINGS = {
    ("rdfa", "paper"): ("model.block.state=2", "model.stem.channel_width=1"),
    ("rdfa", "released"): ("model.block.state=2", "model.stem.channel_width=3"),
    ("actionmamba", "dbm"): ("model.block.state=2",),
    ("actionmamba", "vim"): ("model.block.state=2",),
    ("actionformer", "paper"): ("model.block.heads=2", "model.block.window=5", "model.block.dropout=0"),
}


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    with use_backend("reference"):
        yield
    torch.set_default_dtype(torch.float32)


def small(variant: str, *overrides: str, model: str = "rdfa") -> Model:
    return compose(
        dataset="thumos14",
        model=model,
        variant=variant,
        scale="full",
        folder=ROOT / "params",
        overrides=(
            "model.width=4",
            "model.heads.width=4",
            "model.stem.recurrence=2",
            "model.drop_path=0",
            "model.path_scale=0.7",
            "model.regression_ranges=[[0, 4], [4, 10000]]",
            *SETTINGS.get((model, variant), ()),
            *overrides,
        ),
    ).run.model


def check(module: nn.Module, inputs: list[Tensor]) -> None:
    """Gradients of a module for its parameters and floating inputs, through its public call."""
    names, parameters = zip(*module.named_parameters(), strict=True) if list(module.parameters()) else ((), ())
    for parameter in parameters:
        parameter.data.add_(0.1 * torch.randn_like(parameter))

    def call(*values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, values[len(inputs) :], strict=True))
        output = torch.func.functional_call(module, given, values[: len(inputs)])
        return tuple(flat(output))

    wanted = [value.clone().requires_grad_(value.is_floating_point()) for value in inputs]
    assert torch.autograd.gradcheck(call, (*wanted, *parameters), fast_mode=True)


def flat(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    else:
        for part in output:  # type: ignore[attr-defined]
            yield from flat(part)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_causal_convolution_has_the_gradients_of_numerical_differences(width: int, reverse: bool) -> None:
    x, weight, bias = torch.randn(2, 5, 3), torch.randn(3, width), torch.randn(3)
    inputs = tuple(value.requires_grad_() for value in (x, weight, bias))
    assert torch.autograd.gradcheck(lambda *values: causal_convolution(*values, reverse), inputs)


@pytest.mark.parametrize(
    ("aggregate", "share"),
    [("sum_maps", False), ("sum_outputs", False), ("sum_outputs", True), ("concatenate", False), ("concatenate", True)],
)
def test_fa_bi_s6_has_the_gradients_of_numerical_differences(aggregate: str, share: bool) -> None:
    params = small("paper", f"model.block.aggregate={aggregate}", f"model.block.share_bc={str(share).lower()}")
    assert isinstance(params.block, S6)
    check(FABiS6(4, (2, 3), params.block), [torch.randn(2, 6, 4)])


@pytest.mark.parametrize("lengths", [None, torch.tensor([7, 4])])
@pytest.mark.parametrize(("model", "variant"), MIXERS)
def test_every_mixer_has_the_gradients_of_numerical_differences(
    model: str, variant: str, lengths: Tensor | None
) -> None:
    params = small(variant, model=model)
    steps = torch.randn(2, 7, 4)
    mixed = mixer(4, params.branch.kernels, params.block)
    check(mixed, [steps] if lengths is None else [steps, lengths])


@pytest.mark.parametrize("variant", VARIANTS)
def test_embedding_has_the_gradients_of_numerical_differences(variant: str) -> None:
    check(Embedding(3, small(variant)), [torch.randn(2, 3, 8), MASK])


def test_affine_drop_path_has_the_gradients_of_numerical_differences() -> None:
    check(AffineDropPath(4, 0.0, 0.5), [torch.randn(2, 5, 4)])


@pytest.mark.parametrize("structure", ["temporal", "channel", "dual"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_dual_structure_has_the_gradients_of_numerical_differences(variant: str, structure: str) -> None:
    params = small(variant, "model.stem.channel_input=stem_input")
    check(Dual(structure, (2, 3), params.stem, params), [torch.randn(2, 8, 4), MASK])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("block", [StemBlock, BranchBlock])
def test_stem_and_branch_have_the_gradients_of_numerical_differences(
    block: type[StemBlock | BranchBlock], variant: str
) -> None:
    check(block(small(variant)), [torch.randn(2, 8, 4), MASK])


@pytest.mark.parametrize("block", [StemBlock, BranchBlock])
@pytest.mark.parametrize(("model", "variant"), MIXERS)
def test_stem_and_branch_of_every_kind_have_the_gradients_of_numerical_differences(
    model: str, variant: str, block: type[StemBlock | BranchBlock]
) -> None:
    check(block(small(variant, model=model)), [torch.randn(2, 8, 4), MASK])


def test_feed_forward_path_has_the_gradients_of_numerical_differences() -> None:
    params = small("paper", model="actionformer")
    assert isinstance(params.block, Attention)
    check(FeedForwardPath(params, params.block), [torch.randn(2, 8, 4), MASK])


@pytest.mark.parametrize("masked", [False, True])
def test_pooling_to_the_next_level_has_the_gradients_of_numerical_differences(masked: bool) -> None:
    x = torch.randn(2, 8, 3, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: halve(value, MASK, masked)[0], (x,))


@pytest.mark.parametrize("variant", VARIANTS)
def test_neck_and_heads_have_the_gradients_of_numerical_differences(variant: str) -> None:
    params, masked = small(variant), variant == "paper"
    levels, masks = [torch.randn(2, 8, 4), torch.randn(2, 4, 4)], [MASK, MASK[:, ::2]]

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neck = Neck(4, 2, masked)
            self.classes = ClassHead(4, 3, params.heads, masked)
            self.offsets = OffsetHead(4, 2, params.heads, masked)

        def forward(self, fine: Tensor, coarse: Tensor) -> list[Tensor]:
            pyramid = self.neck([fine, coarse], masks)
            return [*self.classes(pyramid, masks), *self.offsets(pyramid, masks)]

    check(Heads(), levels)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loss_of_the_whole_detector_has_the_gradients_of_numerical_differences(variant: str) -> None:
    run = small(variant)
    detector = Detector(3, 2, run)
    for parameter in detector.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    targets = (torch.rand(2, 12, 2) < 0.3).double()
    offsets = torch.rand(2, 12, 2) * 3 + 0.5
    loss = compose(dataset="thumos14", model="rdfa", variant=variant, scale="full", folder=ROOT / "params").run
    names = [name for name, _ in detector.named_parameters()]

    def total(features: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        predictions = torch.func.functional_call(detector, given, (features, MASK))
        normalizer = Normalizer(loss.training.loss)
        return detection_losses(predictions, targets, offsets, normalizer, loss.training.loss).total

    inputs = (torch.randn(2, 3, 8, requires_grad=True), *detector.parameters())
    assert torch.autograd.gradcheck(total, inputs, fast_mode=True)
