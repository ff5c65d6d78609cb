"""How a stage's cost grows with what it is given: CPU time and memory in a process of its own, and the slope of both.

In order of reading: `Cost` and `cost_of`, one measurement; `Growth`, a stage at several sizes; `measured`, all of them.
"""

import cProfile
import json
import math
import multiprocessing
import os
import pstats
import shutil
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import brentq

from benchmarks.machine import forget_peak, resident

BOUND = 1.15
"""Slope from which growth is worse than linear. Sorting and trees are n log n, whose slope from 3,700 to 37,000 is
1.11; the rest is left to the noise of CPU time. A loop within a loop has 2."""
GROSS = 1.6
"""The same for the time of small sizes, of which noise is a larger part."""
FLAT = {"seconds": 0.3, "mib": 16.0, "calls": 1000.0}
"""Increments from the smallest to the largest size below which a cost does not grow at all."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Something whose cost is to grow at most linearly."""

    name: str
    work: Callable[[Path, int], None]
    """A function of a module, called in the folder of a size, with the size."""
    makes: tuple[str, ...] = ()
    """Patterns of what it leaves, which is removed first, so that it can be measured again."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one execution of a stage took."""

    seconds: float
    """CPU time, with the processes that it started."""
    mib: float
    """Most memory, of this process beyond what it began with, or of a process that it started."""
    calls: float
    """Functions called, in Python and out of it: the same each time; NaN if not counted."""


def cost_of(stage: Stage, folder: Path, size: int, counted: bool = False) -> Cost:
    """Run a stage once, in a process that has its modules loaded and nothing else.

    Raises:
        AssertionError: it failed; the message ends with what it said.
    """
    for pattern in stage.makes:
        for left in folder.glob(pattern):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    log, found = folder / "stage.log", folder / "cost.json"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.load_stages", "tests.faults.load_runs"])
    process = context.Process(target=_measure, args=(stage, folder, size, counted, log, found))
    process.start()
    try:
        process.join()
    finally:
        if process.is_alive():
            process.kill()
    said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    assert process.exitcode == 0, f"{stage.name}, {size}: exit status {process.exitcode}\n{said}"
    return Cost(**json.loads(found.read_text()))


def _measure(stage: Stage, folder: Path, size: int, counted: bool, log: Path, found: Path) -> None:
    os.chdir(folder)
    profile = cProfile.Profile()
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        forget_peak()
        before, memory = _clock(), resident()
        try:
            if counted:
                profile.enable()
            stage.work(folder, size)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            profile.disable()
        took, most = _clock() - before, resident(peak=True) - memory
    calls = float(pstats.Stats(profile).total_calls) if counted else math.nan  # type: ignore[attr-defined]
    found.write_text(json.dumps({"seconds": took, "mib": max(most, _children()), "calls": calls}))


def _clock() -> float:
    now = os.times()
    return now.user + now.system + now.children_user + now.children_system


def _children() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


@dataclass(frozen=True, kw_only=True)
class Growth:
    """A stage's costs at several sizes, the first of them all but empty."""

    name: str
    sizes: tuple[int, ...]
    costs: tuple[Cost, ...]

    def column(self, what: str) -> list[float]:
        """`seconds`, `mib` or `calls` at each size."""
        return [getattr(cost, what) for cost in self.costs]

    def slope(self, what: str) -> float | None:
        """p in cost = constant + factor * size^p, the constant being the cost of the first size; None: it is flat.

        Without the constant part, which would hide the growth of the other. Memory is the most of several moments, and
        what the first size takes need not be part of what a larger one takes: where three larger sizes have a smaller
        constant in common, that one counts.
        """
        values, sizes = np.array(self.column(what)), np.array(self.sizes, dtype=float)
        if not values.max() - values[0] > FLAT[what]:
            return None
        more = np.maximum(values[1:] - values[0], 0.01 * (values.max() - values[0]))
        slope = float(np.polyfit(np.log(sizes[1:] - sizes[0]), np.log(more), 1)[0])
        return min(slope, _power(sizes[-3:], values[-3:])) if what == "mib" and len(sizes) > 3 else slope

    def at_least(self, other: "Growth") -> "Growth":
        """The lower of two measurements at each size: other work on the machine only ever adds."""
        pairs = zip(self.costs, other.costs, strict=True)
        lower = (Cost(**{name: min(vars(one)[name], vars(two)[name]) for name in vars(one)}) for one, two in pairs)
        return Growth(name=self.name, sizes=self.sizes, costs=tuple(lower))

    def worse_than(self, bounds: dict[str, float]) -> list[str]:
        """What grows faster than its bound, in words."""
        return [
            f"{self.name}: {what} grow with the power {slope:.2f} (bound {bound:g}): "
            + ", ".join(f"{value:.4g} at {size:,}" for size, value in zip(self.sizes, self.column(what), strict=True))
            for what, bound in bounds.items()
            if (slope := self.slope(what)) is not None and slope > bound
        ]


def _power(sizes: np.ndarray, values: np.ndarray) -> float:
    """p in value = constant + factor * size^p through three points; infinite if no p up to 4 leads through them."""

    def bend(p: float) -> float:
        (early, late), (less, more) = np.diff(sizes**p), np.diff(values)
        return float(late * less - early * more)

    lowest, highest = 0.01, 4.0
    return float(brentq(bend, lowest, highest)) if bend(lowest) * bend(highest) < 0 else math.inf


def measured(
    stage: Stage, folders: Sequence[Path], sizes: Sequence[int], bounds: dict[str, float], attempts: int = 3
) -> Growth:
    """A stage at all sizes; what seems too steep is measured again, up to `attempts` times."""
    found: Growth | None = None
    for _ in range(attempts):
        costs = tuple(cost_of(stage, *place, counted="calls" in bounds) for place in zip(folders, sizes, strict=True))
        once = Growth(name=stage.name, sizes=tuple(sizes), costs=costs)
        found = once if found is None else found.at_least(once)
        if not found.worse_than(bounds):
            break
    assert found is not None
    return found
