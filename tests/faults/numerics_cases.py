"""Random problems for the selective scan, and what becomes of them on a backend.

In order of reading: `Case` and `draw_case`; `truth`, the sequential reference in float64; `wrong_with`, what a backend
got wrong. All numbers are drawn with eight significant bits, which every format holds: one truth serves for all.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from rdfa.ops.selective_scan import available_backends, cpu, selective_scan, use_backend

LEAVES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
TIMED = ("u", "delta", "B", "C", "z")
FORMATS = (torch.float32, torch.bfloat16, torch.float16)
STEPS = ("usual", "usual", "zero", "tiny", "huge", "mixed", "minus infinity")
RATES = ("usual", "usual", "none", "strong", "mixed")
ROUNDINGS, EXTREME = 16, 104
"""Roundings of float32 per step that an error may hold: each step has some five operations and an exponential, and the
bound is on a tensor's largest number. Where a decay is strong, all of a tensor may have come through e^-88, whose
relative error is 88 roundings."""
NOTHING = 1e-30
"""What passes for zero: the kernel's softplus ends at e^-87, not at 0."""
Results = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A problem."""

    inputs: dict[str, Any]
    """In float32."""
    about: str
    """So that a person can find it."""
    roundings: int

    @property
    def steps(self) -> int:
        """T."""
        return int(self.inputs["u"].shape[-1])


def draw_case(random: Random, shape: tuple[int, int, int, int] | None = None, extreme: bool = True) -> Case:
    """Draw shape (B, D, T, N), which inputs there are, their layout, their sizes and how videos are padded."""
    seed = random.getrandbits(31)
    make = torch.Generator().manual_seed(seed)
    if shape is None:
        steps = random.choice((1, 2, 3, 31, 32, 33, 64, random.randint(4, 150), random.randint(4, 400)))
        shape = (random.randint(1, 3), random.choice((1, 5, 16, 17, 40)), steps, random.choice((1, 3, 8, 16, 24)))
    batch, channels, steps, states = shape
    last = random.random() < 0.5

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=make).bfloat16().float()

    def timed(rows: int) -> Tensor:
        return normal(batch, steps, rows).mT if last else normal(batch, rows, steps)

    softplus = random.random() < 0.7
    kind, rates = (random.choice(kinds) if extreme else "usual" for kinds in (STEPS, RATES))
    inputs: dict[str, Any] = {"u": timed(channels), "B": timed(states), "C": timed(states)}
    inputs["delta"] = _delta(timed(channels), kind, softplus, make)
    inputs["A"] = _rates(torch.rand(channels, states, generator=make), rates, make)
    inputs |= {name: normal(channels) for name in ("D",) if random.random() < 0.7}
    inputs |= {"z": timed(channels)} if random.random() < 0.7 else {}
    if softplus:
        inputs |= {"delta_softplus": True, "delta_bias": normal(channels) - 2}
    inputs["reverse"] = random.random() < 0.5
    if random.random() < 0.6:
        inputs["lengths"] = torch.tensor([random.choice((0, steps, random.randint(0, steps))) for _ in range(batch)])
    about = f"(B, D, T, N) {shape}, delta {kind}{', softplus' if softplus else ''}, A {rates}, drawn by {seed}"
    given = [name for name in ("D", "z") if name in inputs] + ["reverse"] * inputs["reverse"]
    given += [f"lengths {inputs['lengths'].tolist()}"] if "lengths" in inputs else []
    given += ["channels last" if last else "time last"]
    calm = (kind, rates) == ("usual", "usual")
    return Case(inputs, f"{about}, {', '.join(given)}", ROUNDINGS if calm else EXTREME)


def _delta(x: Tensor, kind: str, softplus: bool, make: torch.Generator) -> Tensor:
    """Step sizes; before softplus they may have any sign, without it they are as a softplus would leave them."""
    if not softplus:
        x = (0.25 * x.abs()).bfloat16().float()
    some = torch.rand(x.shape, generator=make) < 0.3
    smallest = -math.inf if softplus else 0.0
    return {
        "usual": x,
        "zero": torch.full_like(x, smallest if softplus else 0.0),
        "tiny": (x - 24.0).bfloat16().float() if softplus else x * 2.0**-6,
        "huge": x.abs() * 2.0**12,
        "mixed": torch.where(some, x.abs() * 2.0**12, x),
        "minus infinity": torch.where(some, smallest, x),
    }[kind]


def _rates(x: Tensor, kind: str, make: torch.Generator) -> Tensor:
    usual = -(x * x.shape[1] + 0.1)
    pick = torch.randint(0, 4, x.shape, generator=make)
    mixed = torch.where(pick == 0, 0.0, torch.where(pick == 1, -1e30, torch.where(pick == 2, -1e-30, usual)))
    return {"usual": usual, "none": torch.zeros_like(x), "strong": -1e4 * x - 1, "mixed": mixed}[kind]


def truth(case: Case) -> Results:
    """Output and all gradients from the sequential reference in float64."""
    with use_backend("reference"):
        return _results(case, torch.float64, widened=True)


def scanned(case: Case, dtype: torch.dtype) -> Results:
    """The same in a format, on whatever backend is in use."""
    return _results(case, dtype, widened=False)


def _results(case: Case, dtype: torch.dtype, widened: bool) -> Results:
    leaves = {
        name: case.inputs[name].detach().to(dtype if widened or name in TIMED else torch.float32).requires_grad_()
        for name in LEAVES
        if name in case.inputs
    }
    out = selective_scan(**case.inputs | leaves)
    gradients = torch.autograd.grad(out, list(leaves.values()), _incoming(out))
    return {"output": out.detach(), **dict(zip(leaves, gradients, strict=True))}


def _incoming(out: Tensor) -> Tensor:
    """A gradient of the output, always the same of a shape."""
    return torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(out)


@contextmanager
def running(backend: str) -> Iterator[None]:
    """Run all scans on a backend; of the compiled one perhaps an instruction set, `cpu-avx2`."""
    name, _, instructions = backend.partition("-")
    with ExitStack() as stack:
        if instructions:
            stack.enter_context(cpu.use_instruction_set(instructions))
        stack.enter_context(use_backend(name))
        yield


def backends() -> list[str]:
    """Those that run here on a CPU, each instruction set of the compiled one for itself."""
    found = [name for name in available_backends() if name in ("reference", "chunked")]
    return found + ([f"cpu-{name}" for name in cpu.instruction_sets()] if "cpu" in available_backends() else [])


def wrong_with(case: Case, dtype: torch.dtype, expected: Results, found: Results) -> str | None:
    """What is further off than the format explains, in words.

    A number is rounded to its format once, by half its epsilon of what it is itself; and before by float32, in which
    the states are whatever the format: `roundings` per step, which add up like a random walk. What the format cannot
    hold, as a half-precision gradient beyond 65,504, must be infinite or nearly so.
    """
    inside = case.roundings * torch.finfo(torch.float32).eps * math.sqrt(case.steps)
    for name, value in found.items():
        limits, exact = torch.finfo(value.dtype), expected[name]
        holds = exact.abs() < 0.99 * limits.max
        if not bool(value[holds].isfinite().all()):
            return f"{name} is not finite where it should be"
        if bool((value[~holds].abs() < 0.98 * limits.max).any()):
            return f"{name} is small where it should be beyond what {dtype} holds"
        largest = _scale(case, name, expected)
        allowed = limits.eps / 2 * exact.abs() + inside * largest + limits.smallest_normal * limits.eps + NOTHING
        excess = float(((value.double() - exact).abs() / allowed)[holds].max()) if bool(holds.any()) else 0.0
        if excess > 1:
            return f"{name} is off by {excess:.3g} times the bound"
    return None


def _scale(case: Case, name: str, expected: Results) -> float:
    """What a tensor's roundings are in proportion to: its largest number, or the sum of what may have cancelled."""
    if name == "delta_bias":
        return float(expected["delta"].abs().sum((0, 2)).max())
    if name == "D":
        gate = torch.nn.functional.silu(case.inputs["z"]) if "z" in case.inputs else torch.ones(())
        return float((case.inputs["u"] * gate * _incoming(case.inputs["u"])).abs().sum((0, 2)).max())
    return float(expected[name].abs().max())
