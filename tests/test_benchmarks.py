"""The programs of `make bench` at sizes that take a second: not their figures, but their bookkeeping."""

import importlib
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rdfa.ops.selective_scan import available_backends
from tests.conftest import ROOT, TINY

SETTINGS = ("model.stem.channel_width=16", *(setting for setting in TINY if not setting.startswith("source.")))


@pytest.fixture
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module(request.param)


class Two(nn.Module):
    """Named as the detector's parts, one of them computed twice if `again`."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.neck, self.class_head, self.again = nn.Linear(64, 64), nn.Conv1d(64, 64, 3), again

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = checkpoint(self.neck, x, use_reentrant=False) if self.again else self.neck(x)
        y: torch.Tensor = self.class_head(x)
        return y


@pytest.mark.parametrize("program", ["step_profile"], indirect=True)
@pytest.mark.parametrize("again", [False, True])
def test_a_step_s_profile_adds_up_and_gives_each_operation_to_its_module(program: ModuleType, again: bool) -> None:
    model = Two(again)
    optimizer = torch.optim.AdamW(model.parameters())
    x = torch.randn(2, 64, 64, requires_grad=True)

    def step() -> None:
        model(x).square().sum().backward()
        optimizer.step()

    step()
    whole, shares = program.split(model, step)
    assert sum(share.milliseconds for share in shares) == pytest.approx(whole, rel=0.01)

    def places(kind: str) -> set[tuple[str, str]]:
        return {(share.part, share.phase) for share in shares if share.kind == kind}

    recomputed = {("neck", "recomputation")} if again else set()
    assert places("matrix products") == {("neck", "forward"), ("neck", "backward")} | recomputed
    assert places("dense convolution") == {("class head", "forward"), ("class head", "backward")}
    assert "aten::pow" in {share.operation for share in shares if share.part == "losses"}
    assert {share.part for share in shares if "AdamW" in share.operation} == {"optimiser"}


@pytest.mark.parametrize("program", ["training_step"], indirect=True)
def test_the_training_step_s_parts_are_all_there(program: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    case = program.Case("released", "bfloat16", False, 1, SETTINGS)
    program.print_case(case, program.measure(case, steps=1), rate=100.0)
    rows = {line.split(" | ")[0].removeprefix("| ") for line in capsys.readouterr().out.splitlines()}
    parts = {"embedding", "stem, temporal", "stem, channel", "branch, level 2", "neck", "class head", "offset head"}
    kinds = {"matrix products", "dense convolution", "depthwise convolution", "scan", "casts", "Python and dispatch"}
    assert parts | kinds | {"losses", "optimiser", "x_proj", "out_proj"} <= rows


@pytest.mark.parametrize("program", ["selective_scan"], indirect=True)
def test_every_candidate_of_the_scan_is_measured_or_says_why_not(program: ModuleType) -> None:
    found = program.candidates(quick=True)
    times = program.measure(found, (1, 4, 16, 2), threads=1, rounds=1)
    assert set(times) == {(name, label) for name in found for label in program.PASSES}
    for name, candidate in found.items():
        if not isinstance(candidate, str):
            assert all(times[name, label] > 0 for label in program.PASSES), name
    own = {label for backend, label in program.BACKENDS.items() if backend in available_backends()}
    assert own <= {name for name, candidate in found.items() if not isinstance(candidate, str)}
    if importlib.util.find_spec("mambapy") is None:
        assert found["mambapy, pscan"] == "not installed; to get it: pip install mambapy"


@pytest.mark.parametrize("program", ["boundary_matching"], indirect=True)
def test_the_three_ways_of_boundary_matching_give_the_same_and_are_measured(program: ModuleType) -> None:
    size = program.Size("tiny", durations=6, steps=9, batch=2, channels=3, outputs=4, samples=5)
    assert program.difference(size) < 1e-5
    times = program.measure(size, rounds=1)
    assert times.keys() == {(name, label) for name in program.WAYS for label in program.PASSES}
    assert all(value > 0 for value in times.values())
