"""Comparisons with golden files of the peers: which test reads which file, and how large the errors were.

A test names its files with `@pytest.mark.golden("nms_n300.npz", ...)`, opens them through the fixture `golden` and
hands what it found to the fixture `compare`. `pytest -m parity` runs all and lists each comparison with its error.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Golden = Callable[[str], Path]
Compare = Callable[..., None]

FOLDER = "golden"
_COMPARED = "compared"


@pytest.fixture
def golden(request: pytest.FixtureRequest, shared: Path) -> Golden:
    """Path of a golden file that the test's mark names; skips where there are none."""
    declared = [name for mark in request.node.iter_markers("golden") for name in mark.args]

    def path(name: str) -> Path:
        assert name in declared, f"{name} is missing in this test's mark `golden`"
        return shared / FOLDER / name

    return path


@pytest.fixture
def compare(request: pytest.FixtureRequest) -> Compare:
    """Hold arrays (or numbers) against expected ones, and record the largest error with its bound."""

    def check(what: str, found: Any, expected: Any, bound: float, *, absolute: bool = False) -> None:
        error = largest_error(found, expected, absolute)
        kind = "absolute" if absolute else "relative"
        request.node.user_properties.append((_COMPARED, [what, error, bound, kind]))
        assert error <= bound, f"{what}: largest {kind} error {error:.2g} exceeds {bound:.2g}"

    return check


def largest_error(found: Any, expected: Any, absolute: bool = False) -> float:
    """Largest absolute difference, divided by the largest expected value unless `absolute`; inf for other shapes."""
    first, second = (np.asarray(x.detach() if hasattr(x, "detach") else x, dtype=np.float64) for x in (found, expected))
    if first.shape != second.shape:
        return float("inf")
    difference = float(np.abs(first - second).max(initial=0.0))
    scale = 1.0 if absolute else float(np.abs(second).max(initial=0.0))
    if difference == 0:
        return 0.0
    return difference / scale if scale else float("inf")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """List every comparison (with `-m parity` or -v), or say how many there were."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    found = [value for report in reports for name, value in report.user_properties if name == _COMPARED]
    if not found:
        return
    terminalreporter.section("comparisons with the peers' outputs")
    if "parity" in config.option.markexpr or config.option.verbose > 0:
        for line in _lines(found):
            terminalreporter.write_line(line)
    over = sum(not error <= bound for _, error, bound, _ in found)
    terminalreporter.write_line(f"{len(found)} comparisons, {over} over their bound (`-m parity` lists them)")


def _lines(found: Iterable[tuple[str, float, float, str]]) -> list[str]:
    found = sorted(found)
    width = max(len(what) for what, *_ in found)
    return [
        f"{what:<{width}}  largest {kind} error {error:8.2g}, bound {bound:.2g}{'' if error <= bound else '  OVER'}"
        for what, error, bound, kind in found
    ]
