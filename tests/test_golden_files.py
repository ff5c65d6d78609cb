"""No golden file lies unread: each is compared with by a test that `pytest -m parity` runs."""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.comparisons import FOLDER, largest_error
from tests.conftest import ROOT

pytestmark = pytest.mark.parity

ABOUT = {"README.md"}


def declared() -> Iterator[tuple[str, str, bool]]:
    """(golden file, test, whether `-m parity` runs it) of all tests with the mark `golden`."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "mark.golden(" not in path.read_text(encoding="utf-8") or path == Path(__file__):
            continue
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        module_marks = getattr(module, "pytestmark", [])
        module_marks = module_marks if isinstance(module_marks, list) else [module_marks]
        for name, test in inspect.getmembers(module, inspect.isfunction):
            marks = [*module_marks, *getattr(test, "pytestmark", [])]
            parity = any(mark.name == "parity" for mark in marks)
            yield from ((file, name, parity) for mark in marks if mark.name == "golden" for file in mark.args)


def test_every_golden_file_is_read_by_a_comparison_that_the_mark_parity_runs(shared: Path) -> None:
    folder = shared / FOLDER
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - ABOUT
    assert {file for file, _, parity in declared() if parity} == there


def test_every_test_that_reads_golden_files_is_run_by_the_mark_parity() -> None:
    assert [name for _, name, parity in declared() if not parity] == []


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.2),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([], [], 0.0),
        ([1.0], [1.0, 1.0], float("inf")),
        ([1.0], [0.0], float("inf")),
    ],
)
def test_the_largest_error_is_relative_to_the_largest_value(
    found: list[float], expected: list[float], error: float
) -> None:
    assert largest_error(found, expected) == error


def test_a_nan_is_over_every_bound() -> None:
    assert not largest_error([float("nan")], [1.0]) <= 1e9
