"""`model.block.gradients: official` against the gradients of the released code's hand-written backward."""

import pytest
import torch

from rdfa.errors import RdfaError
from rdfa.models.backbone import AffineDropPath
from rdfa.models.detector import Detector
from rdfa.models.official import from_official
from rdfa.models.s6 import FABiS6
from rdfa.ops.selective_scan import use_backend
from rdfa.params import compose
from rdfa.schema import Block
from rdfa.training.schedule import optimizer
from tests.comparisons import Compare, Golden
from tests.conftest import ROOT
from tests.models.test_parity import OFFICIAL, TOLERANCE, error, load, official_losses, released


def block_params(gradients: str) -> Block:
    return released().model.block.model_copy(update={"gradients": gradients})


def detector(gradients: str) -> Detector:
    torch.manual_seed(0)
    return Detector(48, 5, released().model.model_copy(update={"block": block_params(gradients)}))


def is_conv(name: str) -> bool:
    return "conv_weights" in name or "conv_biases" in name


FILES = [f"rdfa_small/{name}_pert.npz" for name in ("io", "grads_fork_backward", "state")]


@pytest.mark.parity
@pytest.mark.golden(*FILES)
@pytest.mark.parametrize("backend", ["default", "chunked"])
def test_official_gradients_equal_those_of_the_released_backward(
    golden: Golden, compare: Compare, backend: str
) -> None:
    io, gradients, state = (load(golden(name)) for name in FILES)
    model = detector("official").train()
    model.load_state_dict(from_official(state, model.state_dict())[0])
    features = io["x"].clone().requires_grad_()
    if backend == "default":
        official_losses(model, features, io).total.backward()
    else:
        with use_backend(backend):
            official_losses(model, features, io).total.backward()
    assert features.grad is not None
    compare(f"official gradients pert, {backend} scan: input", features.grad, gradients.pop("__input__"), TOLERANCE)
    errors, found = {}, {}
    expected, surplus = from_official(gradients, model.state_dict())
    assert surplus == []
    for name, parameter in model.named_parameters():
        if name not in expected:
            assert is_conv(name)
            assert parameter.grad is None
        else:
            assert parameter.grad is not None
            found[name] = parameter.grad
            errors[name] = error(parameter.grad, expected[name])
    assert errors.keys() == expected.keys()
    worst = max(errors, key=lambda name: errors[name])
    what = f"official gradients pert, {backend} scan: {len(errors)} parameters, worst {worst}"
    compare(what, found[worst], expected[worst], TOLERANCE)


@pytest.mark.parametrize("kernels", [(4,), (2, 3, 4)])
def test_official_gradients_leave_the_outputs_as_they_are_and_the_exact_gradients_differ(
    kernels: tuple[int, ...],
) -> None:
    results = {}
    for gradients in ("exact", "official"):
        torch.manual_seed(0)
        block = FABiS6(8, kernels, block_params(gradients))
        x = torch.randn(2, 9, 8).requires_grad_()
        y = block(x)
        y.square().sum().backward()
        results[gradients] = (y.detach(), {name: p.grad for name, p in block.named_parameters()}, x.grad)
    (y, exact, dx), (official_y, official, official_dx) = results["exact"], results["official"]
    assert torch.equal(y, official_y)
    assert all(gradient is not None for gradient in exact.values())
    for name in ("A_log", "D", "dt_bias", "out_proj.weight"):  # right in the released code too
        torch.testing.assert_close(official[name], exact[name], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(official["dt_proj.weight"], exact["dt_proj.weight"], rtol=0.1)
    assert not torch.allclose(official_dx, dx, rtol=1e-3)


def test_a_training_step_with_official_gradients_leaves_the_convolutions_of_the_scans_untouched() -> None:
    model = detector("official").train()
    for path in model.modules():  # at its initial 1e-4 the paths' gradients are too small for Adam to move anything
        if isinstance(path, AffineDropPath):
            path.scale.data.fill_(0.7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predictions = model(torch.randn(2, 48, 96), torch.ones(2, 96, dtype=torch.bool))
    loss = sum(part.square().mean() for part in (*predictions.logits, *predictions.offsets))
    training = released().training.model_copy(update={"weight_decay": 0.5})
    adam = optimizer(model, training)
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    adam.step()
    after = model.state_dict()
    unchanged = {name for name in after if torch.equal(after[name], before[name])}
    assert {name for name in after if is_conv(name)} <= unchanged
    assert not [name for name in unchanged if not is_conv(name) and before[name].abs().sum() > 0 and "norm" not in name]


def test_official_gradients_are_refused_for_blocks_that_the_released_code_does_not_have() -> None:
    for setting in ("model.block.aggregate=sum_outputs", "model.block.share_bc=false"):
        with pytest.raises(RdfaError, match=r"block\.gradients.*block\.aggregate.*block\.share_bc"):
            compose(
                dataset="thumos14",
                model="rdfa",
                variant="released",
                scale="full",
                overrides=(*OFFICIAL, setting, "model.block.gradients=official"),
                folder=ROOT / "params",
            )
