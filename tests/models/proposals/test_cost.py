"""Counted multiply-accumulates and parameters of BMN, G-TAD and RCL against formulas derived by hand."""

import json
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from rdfa.models.cost import Cost, parts
from rdfa.models.proposals.cells import instantiated_segments
from rdfa.models.proposals.detector import ProposalDetector
from tests.models.proposals.settings import GTAD, GTAD_RCL, RCL, proposal_model

C, W, SAMPLED, ALIGNED, MAP, N = 400, 256, 128, 512, 128, 32
ACTIVITYNET = {"steps": 100, "durations": 100}
THUMOS = {"steps": 256, "durations": 64}
SIZES = pytest.mark.parametrize("size", [ACTIVITYNET, THUMOS], ids=["ActivityNet", "THUMOS-14"])


class Counted(NamedTuple):
    macs: dict[str, int]
    """By module name; the whole under the empty one."""
    parameters: dict[str, int]


def counted(changes: dict[str, Any]) -> Counted:
    once = {} if "alignment" in changes else {"alignment.points": 1}  # no other cost, built three times as fast
    return _counted(json.dumps({**changes, **once}))


@cache
def _counted(changes: str) -> Counted:
    params = proposal_model(json.loads(changes))
    with FakeTensorMode(), torch.no_grad():
        model = ProposalDetector(C, params).eval()
        counter = FlopCounterMode(display=False)
        with counter:
            model(torch.empty(1, C, params.steps), torch.ones(1, params.steps, dtype=torch.bool))
        found = counter.get_flop_counts()
    names = [name for name, _ in model.named_modules()]
    whole = type(model).__name__
    macs = {name: sum(found.get(f"{whole}.{name}" if name else whole, {}).values()) // 2 for name in names}
    return Counted(macs, {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_modules()})


def convolution(before: int, after: int, kernel: int = 1, groups: int = 1) -> int:
    """Weights of a convolution, which are also its MACs per place."""
    return before // groups * after * kernel


GRAPH_TIME = convolution(W, 128) + convolution(128, 128, 3, 32) + convolution(128, W)
GRAPH_EDGE = convolution(2 * W, 128) + convolution(128, 128, 1, 32) + convolution(128, W)
GRAPH_BIASES = 2 * (128 + 128 + W)


def block_macs(steps: int) -> int:
    return steps * (GRAPH_TIME + 3 * GRAPH_EDGE)


@SIZES
def test_bmn_costs_what_the_formulas_say(size: dict[str, int]) -> None:
    macs, parameters = counted(size)
    steps, cells = size["steps"], size["steps"] * size["durations"]
    base = convolution(C, W, 3, 4) + convolution(W, W, 3, 4)
    boundary = convolution(W, W, 3, 4) + W
    reduce, sampled = convolution(W, SAMPLED, 3), N * SAMPLED * ALIGNED
    on_map = convolution(ALIGNED, MAP) + 2 * convolution(MAP, MAP, 9)
    assert macs["base"] == steps * base
    assert macs["boundaries"] == steps * 2 * boundary
    assert macs["proposals.align"] == steps * (reduce + sampled)  # T instead of D T times the sampled convolution
    assert macs["proposals"] - macs["proposals.align"] == cells * on_map
    assert macs["confidence"] == cells * 2 * MAP
    assert macs[""] == sum(macs[part] for part in ("base", "boundaries", "proposals", "confidence"))
    assert parameters["base"] == base + 2 * W
    assert parameters["boundaries"] == 2 * (boundary + W + 1)
    assert parameters["proposals"] == reduce + SAMPLED + sampled + ALIGNED + on_map + 3 * MAP
    assert parameters[""] == sum(parameters[part] for part in ("base", "boundaries", "proposals")) + 2 * MAP + 2


@SIZES
def test_gtad_costs_what_the_formulas_say(size: dict[str, int]) -> None:
    macs, parameters = counted({**GTAD, **size})
    steps, cells = size["steps"], size["steps"] * size["durations"]
    first, block = convolution(C, W, 3, 4), GRAPH_TIME + GRAPH_EDGE + GRAPH_BIASES
    sampled, on_map = (N + 4) * W * ALIGNED, convolution(ALIGNED, MAP) + 2 * convolution(MAP, MAP)
    assert macs["base"] == steps * first + block_macs(steps)
    assert macs["boundaries"] == 2 * (block_macs(steps) + steps * W)
    assert macs["proposals.align"] == block_macs(steps) + steps * sampled
    assert macs["proposals"] - macs["proposals.align"] == cells * on_map
    assert macs[""] == sum(macs[part] for part in ("base", "boundaries", "proposals")) + cells * 2 * MAP
    assert parameters["base"] == first + W + block
    assert parameters["boundaries"] == 2 * (block + W + 1)
    assert parameters["proposals"] == block + sampled + ALIGNED + on_map + 3 * MAP
    assert parameters[""] == sum(parameters[part] for part in ("base", "boundaries", "proposals")) + 2 * MAP + 2


@SIZES
def test_an_iteration_costs_three_convolutions_of_the_gru_the_temporal_features_and_the_change(
    size: dict[str, int],
) -> None:
    cells = size["steps"] * size["durations"]
    found = [counted({**RCL, **size, "refine.iterations": n}) for n in (1, 5)]
    width = 2 + 1 + 32
    gru, change = 3 * convolution(64 + width, 64, 9), convolution(64, 2, 9)
    iteration = gru + convolution(MAP, 1) + change
    assert iteration == 172_352
    assert [each.macs[""] - found[0].macs[""] for each in found] == [0, 4 * cells * iteration]
    assert [each.macs["refinement.block"] for each in found] == [n * cells * iteration for n in (1, 5)]
    context = convolution(MAP, 64 + 32, 9)
    assert found[0].macs["refinement.context"] == cells * context
    assert {each.parameters["refinement"] for each in found} == {iteration + 3 * 64 + 1 + 2 + context + 96}


def test_the_cost_of_iterations_is_the_supplement_s_to_the_printed_digits() -> None:
    printed = {0: 98.3, 1: 100.0, 5: 106.9, 10: 115.5, 15: 124.1}
    (slope,) = {(counted({**RCL, "refine.iterations": n}).macs[""] - counted(RCL).macs[""]) / (n - 10) for n in (1, 15)}
    assert slope == 1.72352e9
    assert all(round(98.27 + n * slope / 1e9, 1) == cost for n, cost in printed.items())
    # Without the channel of temporal features no cost of the unrefined detector that prints as 98.3 gives the rest.
    narrow = counted({**RCL, "refine.temporal": 0}).macs["refinement.block"] / 10
    assert 98.35 + 15 * narrow / 1e9 < 124.05


@SIZES
def test_the_continuous_confidence_costs_its_two_layers_for_cells_and_instances(size: dict[str, int]) -> None:
    cells = size["steps"] * size["durations"]
    of_cells = counted({**RCL, **size, "refine.instances.kind": "grid"})
    everywhere = counted({**RCL, **size})
    layers = convolution(MAP + 2, 128) + convolution(128, 2)
    refine = proposal_model({**RCL, **size}).refine
    assert refine is not None
    instances = instantiated_segments(refine.instances, size["durations"], size["steps"])
    assert of_cells.macs["confidence"] == cells * layers
    assert everywhere.macs["confidence"] == (cells + len(instances)) * layers
    assert everywhere.macs[""] - of_cells.macs[""] == len(instances) * layers
    assert of_cells.parameters["confidence"] == layers + 128 + 2


@pytest.mark.parametrize("changes", [{}, GTAD, RCL, GTAD_RCL], ids=["bmn", "gtad", "bmn with RCL", "gtad with RCL"])
def test_the_parts_add_up_to_the_whole(changes: dict[str, Any]) -> None:
    found = counted(changes)
    costs = {
        name: Cost(parameters=found.parameters[name], products=macs, scans=0, readout=0)
        for name, macs in found.macs.items()
    }
    named = parts(costs)
    assert list(named) == ["base", "boundaries", "proposals", "confidence"] + ["refinement"] * ("refine" in changes)
    assert sum(cost.macs for cost in named.values()) == costs[""].macs
    assert sum(cost.parameters for cost in named.values()) == costs[""].parameters


def test_rcl_on_gtad_differs_from_rcl_on_bmn_in_the_base_alone() -> None:
    bmn, gtad = counted(RCL), counted(GTAD_RCL)
    for first, second in ((bmn.macs, gtad.macs), (bmn.parameters, gtad.parameters)):
        assert first[""] - second[""] == first["base"] - second["base"] != 0
