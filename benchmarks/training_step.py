"""One training step of the THUMOS-14 model, split by part and by kind of work: python benchmarks/training_step.py

The step is the training loop's own (targets, forward, losses, backward, clipping, AdamW, weight average) on a random
batch of full windows; nothing is downloaded. Every configuration runs in a process of its own, so that its peak of
memory is its own. Times are of steps without the profiler, CPU time with one thread, wall time with more; the split is
one more step with it, see step_profile.py. All configurations take some five minutes, --quick about one.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from machine import describe_machine, forget_peak, product_rate, resident
from step_profile import ARITHMETIC, KINDS, OUTSIDE, PARTS, PHASES, Share, split

from rdfa.data.windows import Batch, Grid, Window, collate
from rdfa.models.cost import costs
from rdfa.params import compose
from rdfa.schema import Run
from rdfa.training.loop import _Loop
from rdfa.training.processes import ALONE

PARAMS = Path(__file__).resolve().parents[1] / "params"
INSTANCES = 12
"""Per window."""
LARGEST = 20
"""Rows of the list of the largest that is not arithmetic."""
DISTORTED = 1.15
"""The profiler alone lengthens a step by some 4 %."""
AROUND = ("", "backbone.stem.0")
"""Modules whose multiply-adds stand in the rows of their parts."""


class Case(NamedTuple):
    """A configuration of the step; `settings` are further parameters, as on rdfa's command line."""

    variant: str
    precision: str
    recompute: bool
    threads: int
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        recompute = ", checkpoint_recurrence" if self.recompute else ""
        further = "".join(f", {setting}" for setting in self.settings)
        return f"{self.variant}, {self.precision}{recompute}, {self.threads} thread{'s' * (self.threads > 1)}{further}"


class Measured(NamedTuple):
    """Seconds of the steps, MiB resident at the peak and above what stays between steps, and the profiled step."""

    seconds: list[float]
    peak: float
    above: float
    profiled: float
    """Milliseconds of wall time."""
    shares: list[Share]


def run_of(case: Case) -> Run:
    own = {
        "training.precision": case.precision,
        "runtime.checkpoint_recurrence": str(case.recompute).lower(),
        "runtime.threads": case.threads,
        "runtime.device": "cpu",
        "training.test_looks_from": "null",
    }
    overrides = (*(f"{key}={value}" for key, value in own.items()), *case.settings)
    which: Any = {"dataset": "thumos14", "model": "rdfa", "scale": "full", "variant": case.variant}
    return compose(**which, overrides=overrides, folder=PARAMS).run


def random_batch(run: Run) -> Batch:
    """Full windows with instances of many lengths."""
    draw = torch.Generator().manual_seed(0)
    steps = run.windows.max_length

    def window(name: str) -> Window:
        center = torch.rand(INSTANCES, generator=draw) * steps
        half = torch.exp(torch.rand(INSTANCES, generator=draw) * 4 + 1)
        return Window(
            video=name,
            features=torch.randn(run.features.dimension, steps, generator=draw),
            segments=torch.stack([center - half, center + half], dim=1).clamp(0, steps),
            labels=torch.randint(run.head_classes, (INSTANCES,), generator=draw),
            grid=Grid(stride=4, window=16, fps=30),
            duration=steps * 4 / 30,
        )

    return collate([window(str(number)) for number in range(run.training.batch_size)], run)


def measure(case: Case, steps: int) -> Measured:
    """Train some steps in this process."""
    run = run_of(case)
    with tempfile.TemporaryDirectory() as folder:
        loop = _Loop(run, range(200), Path(folder, "state"), ALONE, lambda row: None, None)  # type: ignore[arg-type]
    loop.forward = loop.model.train()
    batch = random_batch(run)
    loop._step(0, batch)  # warms up, and makes the optimiser's state
    seconds = []
    clock = time.process_time if case.threads == 1 else time.perf_counter
    for number in range(steps):
        start = clock()
        loop._step(1 + number, batch)
        seconds.append(clock() - start)
    gc.collect()
    forget_peak()  # the step after it asks the system for all its memory anew: none that is timed
    before = resident()
    loop._step(1 + steps, batch)
    peak = resident(peak=True)
    return Measured(seconds, peak, peak - before, *split(loop.model, lambda: loop._step(2 + steps, batch)))


def in_own_process(case: Case, steps: int) -> Measured:
    command = [sys.executable, __file__, "--case", json.dumps(case), "--steps", str(steps)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{case}: this configuration failed\n{result.stderr}")
    *others, shares = json.loads(result.stdout.splitlines()[-1])
    return Measured(*others, [Share(*share) for share in shares])


def print_case(case: Case, found: Measured, rate: float) -> None:
    """A case's times and memory, and its split."""
    run = run_of(case)
    cost = costs(run, batch=run.training.batch_size)
    products = cost[""].products / 1e9
    print(f"\n## {case}\n")
    print(f"steps: {', '.join(f'{value:.2f}' for value in found.seconds)} s")
    print(f"memory: {found.peak:,.0f} MiB resident at the peak, {found.above:,.0f} above what stays between steps")
    print(
        f"forward: {products:.0f} G multiply-adds in products and convolutions, {cost[''].scans / 1e9:.1f} G in scans"
    )
    sums = {kind: sum(share.milliseconds for share in found.shares if share.kind == kind) for kind in KINDS}
    total = sum(sums.values())
    arithmetic = {kind: f"{kind} {100 * sums[kind] / total:.0f} %" for kind in ARITHMETIC}
    spent = sum(sums[kind] for kind in KINDS if kind.endswith(("products", "convolution"))) / 1e3
    again = cost["backbone.stem.0"].products / 1e9 if case.recompute else 0.0
    bound = (3 * products + again) / rate  # forward, backward to inputs and to weights, and what is computed again
    print(f"products and convolutions take {spent:.2f} s; all of them at the rate of linear layers: {bound:.2f} s")
    rest = 100 * (1 - sum(sums[kind] for kind in ARITHMETIC) / total)
    print(f"shares: {', '.join(arithmetic.values())}, everything else {rest:.0f} %\n")
    giga = {part: cost[name].products / 1e9 for name, part in PARTS.items() if name in cost and name not in AROUND}
    print_split("part", [*PARTS.values(), *OUTSIDE], found.shares, lambda share: share.part, giga)
    print_split("kind of work", KINDS, found.shares, lambda share: share.kind)
    for part in ("stem, temporal", "stem, channel", "branch, level 1"):
        own = [share for share in found.shares if share.part == part]
        names = sorted({inner(share) for share in own}, key=lambda name: (name[0] != "(", name))
        print_split(f"in {part}", names, own, inner)
    print_largest(found.shares)
    print(f"profiled {found.profiled:,.0f} ms, attributed {total:,.0f} ms, remainder {found.profiled - total:.1f} ms")
    slower = found.profiled / 1e3 / min(found.seconds)
    if slower > DISTORTED:
        print(
            f"The profiled step took {slower:.2f} times the others' time: the machine was busy, the split is distorted."
        )


def inner(share: Share) -> str:
    """The row of an operation in the split of a block."""
    return share.inside.removeprefix("dual.").removeprefix("temporal").strip(".") or f"({share.kind})"


def print_split(
    title: str,
    rows: Iterable[str],
    shares: list[Share],
    row_of: Callable[[Share], str],
    giga: dict[str, float] | None = None,
) -> None:
    """A table of milliseconds by phase; with `giga`, multiply-adds of the forward pass beside them."""
    phases = [phase for phase in PHASES if any(share.phase == phase for share in shares)]
    sums = {(row, phase): 0.0 for row in rows for phase in phases}
    for share in shares:
        sums[row_of(share), share.phase] += share.milliseconds
    whole = sum(sums.values()) or 1.0
    print(f"| {title}, ms | {' | '.join(phases)} | all | % |{' G multiply-adds |' * (giga is not None)}")
    print(f"|---|{'---|' * (len(phases) + 2 + (giga is not None))}")
    for row in dict.fromkeys(row for row, _ in sums):
        cells = [sums[row, phase] for phase in phases]
        if sum(cells) >= 0.05:
            counted = f" {giga[row]:.1f} |" if giga and row in giga else " |" * (giga is not None)
            shown = " | ".join(f"{cell:,.1f}" for cell in [*cells, sum(cells)])
            print(f"| {row} | {shown} | {100 * sum(cells) / whole:.1f} |{counted}")
    totals = [sum(sums[row, phase] for row, phase in sums if phase == wanted) for wanted in phases]
    shown = " | ".join(f"{cell:,.1f}" for cell in [*totals, sum(totals)])
    print(f"| all | {shown} | 100.0 |{' |' * (giga is not None)}\n")


def print_largest(shares: list[Share]) -> None:
    """The operations that are not arithmetic and take the most, summed over a part."""
    print("| not arithmetic: operation on shapes | part | phase | ms |\n|---|---|---|---|")
    rest = sorted((share for share in shares if share.kind not in ARITHMETIC), key=lambda share: -share.milliseconds)
    for share in rest[:LARGEST]:
        where = f"{share.part} {share.inside}".strip()
        print(f"| {share.operation} {share.shapes} | {where} | {share.phase} | {share.milliseconds:.1f} |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="steps without the profiler (default 3)")
    parser.add_argument("--quick", action="store_true", help="variant released only, without checkpoint_recurrence")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="further parameters of the run")
    parser.add_argument("--case", type=lambda text: Case(*json.loads(text)), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case:  # a process that this program started
        print(json.dumps(measure(asked.case, asked.steps)))
        return
    print(f"# A training step of THUMOS-14\n\n{describe_machine()}\n")
    rates = {name: product_rate(asked.threads, getattr(torch, name)) for name in ("float32", "bfloat16")}
    clock = "CPU time" if asked.threads == 1 else "wall time"
    listed = ", ".join(f"{rate:.0f} G multiply-adds/s in {name}" for name, rate in rates.items())
    print(f"{asked.threads} thread{'s' * (asked.threads > 1)}, {clock}; linear layers alone: {listed}")
    for variant in ("released",) if asked.quick else ("released", "paper"):
        for precision, rate in rates.items():
            for recompute in (False,) if asked.quick else (False, True):
                case = Case(variant, precision, recompute, asked.threads, tuple(asked.settings))
                print_case(case, in_own_process(case, asked.steps), rate)


if __name__ == "__main__":
    main()
