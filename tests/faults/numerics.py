"""Numbers at their limits: the selective scan in every format, and what padding may do to a detector."""

import math
from collections.abc import Iterator
from typing import Any

import torch

from rdfa.ops.selective_scan import available_backends, selective_scan
from tests.faults.campaign import SURVIVED, WRONG, Kind, NotHere, Outcome, Scene
from tests.faults.numerics_cases import FORMATS, Case, backends, draw_case, running, scanned, truth, wrong_with
from tests.faults.numerics_padding import padded_batches, padded_detectors, padded_proposals

LONG = (1, 4, 100_000, 4)
"""Batch, channels, steps and states of a long sequence: three hours of video at ten features a second."""


def drawn_scans(scene: Scene) -> Iterator[Outcome]:
    """Random problems, each on every backend in every format against the sequential reference in float64."""
    torch.set_num_threads(1)
    for _ in range(scene.count(25, 300)):
        yield _outcome(draw_case(scene.random), backends())


def long_scans(scene: Scene) -> Iterator[Outcome]:
    """Long sequences, in which errors add up; the sequential reference is slow, so that it runs in one format only."""
    torch.set_num_threads(1)
    shape = LONG if scene.full else (*LONG[:2], 10_000, LONG[3])
    for _ in range(scene.count(1, 2)):
        yield _outcome(draw_case(scene.random, shape, extreme=False), backends(), {"reference": FORMATS[:1]})


def _outcome(case: Case, names: list[str], formats: dict[str, tuple[torch.dtype, ...]] | None = None) -> Outcome:
    expected = truth(case)
    for name in names:
        for dtype in (formats or {}).get(name, FORMATS):
            with running(name):
                wrong = wrong_with(case, dtype, expected, scanned(case, dtype))
            if wrong is not None:
                return Outcome(WRONG, f"{name}, {dtype}: {wrong}; {case.about}")
    return Outcome(SURVIVED)


def cuda_scans(scene: Scene) -> Iterator[Outcome]:
    """The same problems on a GPU, by mamba-ssm."""
    if "cuda" not in available_backends():
        raise NotHere("no GPU with mamba-ssm")
    for _ in range(scene.count(25, 300)):
        case = draw_case(scene.random)
        moved = {name: x.cuda() if torch.is_tensor(x) else x for name, x in case.inputs.items()}
        expected = truth(case)
        for dtype in FORMATS:
            with running("cuda"):
                found = scanned(Case(moved, case.about, case.roundings), dtype)
            wrong = wrong_with(case, dtype, expected, {name: x.cpu() for name, x in found.items()})
            yield Outcome(WRONG, f"cuda, {dtype}: {wrong}; {case.about}") if wrong else Outcome(SURVIVED)


def impossible_steps(scene: Scene) -> Iterator[Outcome]:
    """A step size of minus infinity or NaN without a softplus: nothing but what follows from it may change."""
    torch.set_num_threads(1)
    for _ in range(scene.count(10, 100)):
        case = draw_case(scene.random, extreme=False)
        inputs = dict(case.inputs)
        batch, channels, steps = inputs["u"].shape
        at = tuple(scene.random.randrange(size) for size in (batch, channels, steps))
        length = int(inputs["lengths"][at[0]]) if "lengths" in inputs else steps
        inputs["delta"] = inputs["delta"].clone()
        inputs["delta"][at] = scene.random.choice((-math.inf, math.nan) if "delta_bias" not in inputs else (math.nan,))
        reached = torch.zeros(batch, channels, steps, dtype=torch.bool)
        if at[2] < length:
            reached[at[0], at[1], slice(0, at[2] + 1) if inputs["reverse"] else slice(at[2], length)] = True
        yield _spread(case, inputs, reached, at)


def _spread(case: Case, inputs: dict[str, Any], reached: torch.Tensor, at: tuple[int, ...]) -> Outcome:
    what = f"delta {inputs['delta'][at]} at {at}"
    for name in backends():
        with running(name), torch.no_grad():
            clean, dirty = selective_scan(**case.inputs), selective_scan(**inputs)
        if not torch.equal(clean[~reached], dirty[~reached]):
            return Outcome(WRONG, f"{name}: {what} reaches more than what follows from it; {case.about}")
        if bool(reached.any()) and bool(dirty[reached].isfinite().all()):
            return Outcome(WRONG, f"{name}: {what} passes unseen; {case.about}")
    return Outcome(SURVIVED)


KINDS = (
    Kind("drawn scans: formats, shapes, masks, zero, huge and infinite steps", drawn_scans),
    Kind("scans of 100,000 steps", long_scans, limit=180),
    Kind("steps of minus infinity or NaN", impossible_steps),
    Kind("drawn scans on a GPU", cuda_scans),
    Kind("padding and detectors", padded_detectors),
    Kind("padding and detectors on a map of proposals", padded_proposals),
    Kind("padding in batches", padded_batches),
)
