"""`rdfa profile`: the table, and the measurement."""

import pytest

from rdfa.cli import main
from rdfa.models.cost import activation_bytes
from rdfa.params import compose
from tests.conftest import ROOT, TINY


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_profile_prints_the_parameters_and_multiply_accumulates_of_every_part(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["profile", "thumos14-rdfa-released-full-s0"]) == 0
    output = capsys.readouterr().out
    assert "together, as counted on the official code: 70.19" in output
    lines = [line.split() for line in output.splitlines()]
    whole = next(line for line in lines if line[:1] == ["all"])
    assert whole[1:5] == ["23,152,540", "69.55", "2.92", "0.64"]
    assert ["backbone.stem.0.dual.temporal", "2,685,952"] in [line[:2] for line in lines]


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_profile_measures_training_steps_where_asked(variant: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [f"--set={setting}" for setting in (*TINY, "model.stem.channel_width=1", "runtime.device=cpu")]
    assert main(["profile", "--measure", f"thumos14-rdfa-{variant}-sample-s0", *settings]) == 0
    output = capsys.readouterr().out
    assert "training step, batch 2" in output
    assert "peak memory" in output


def test_activation_memory_of_a_small_detector_is_that_of_its_real_tensors() -> None:
    import torch

    from rdfa.models.detector import build

    run = compose(
        dataset="thumos14",
        model="rdfa",
        variant="released",
        scale="sample",
        overrides=(*TINY, "model.stem.channel_width=16"),
        folder=ROOT / "params",
    ).run
    model, kept = build(run).train(), {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        predictions = model(torch.randn(2, 24, 64), torch.ones(2, 64, dtype=torch.bool))
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    real = sum(tensor.untyped_storage().nbytes() for at, tensor in kept.items() if at not in own)
    del predictions
    assert activation_bytes(run, 2) == pytest.approx(real, rel=0.01)
