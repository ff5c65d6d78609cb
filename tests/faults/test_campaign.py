"""The campaign counts what is not survived: it would otherwise pass whatever happens."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.__main__ import BEGIN, END, record
from tests.faults.campaign import HUNG, LOST, SURVIVED, Kind, NotHere, Outcome, Scene, line, run_kind, table
from tests.faults.load_growth import BOUND, Cost, Growth


def drawn(scene: Scene) -> Iterator[Outcome]:
    for _ in range(scene.count(2, 5)):
        yield Outcome(SURVIVED, str(scene.random.random()))
    yield Outcome(LOST, "a checkpoint")


def stops(scene: Scene) -> Iterator[Outcome]:
    yield Outcome(SURVIVED)
    raise ValueError("a defect")


def sleeps(scene: Scene) -> Iterator[Outcome]:
    try:
        time.sleep(60)
    except Exception:  # what is under test may catch everything
        yield Outcome(SURVIVED)


def nothing(scene: Scene) -> Iterator[Outcome]:
    yield from ()


def elsewhere(scene: Scene) -> Iterator[Outcome]:
    raise NotHere("no root here")
    yield


def test_what_is_lost_is_counted_and_named() -> None:
    short, full = (run_kind("g", Kind("drawn", drawn), 0, full) for full in (False, True))
    assert (short.injected, full.injected) == (3, 6)
    assert not short.passed and "a checkpoint" in short.failures[0]
    assert "| g | drawn | 3 | 2 | 1 | 0 | 0 |" in line(short, "abc")
    assert "| **all** |  | 9 | 7 | 2 | 0 | 0 |" in table([line(row, "abc") for row in (short, full)])


@pytest.mark.parametrize(("inject", "said"), [(stops, "ValueError: a defect"), (nothing, "not one fault")])
def test_a_kind_that_fails_or_injects_nothing_does_not_pass(inject: object, said: str) -> None:
    row = run_kind("g", Kind("k", inject), 0, False)  # type: ignore[arg-type]
    assert not row.passed and said in row.failures[0]


def test_a_hang_ends_at_the_limit_and_counts() -> None:
    row = run_kind("g", Kind("k", sleeps, limit=0.2), 0, False)
    assert row.counts == {HUNG: 1}


def test_what_cannot_be_injected_here_is_said() -> None:
    row = run_kind("g", Kind("k", elsewhere), 0, False)
    assert row.passed and row.injected == 0
    assert "not here: no root here" in table([line(row, "abc")])


def test_a_kind_s_line_takes_the_place_of_its_old_one_and_leaves_the_others(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}{END}after\n")
    rows = {name: run_kind(name, Kind("drawn", drawn), 0, False) for name in ("load", "crashes")}
    for name, revision in (("load", "one"), ("crashes", "two"), ("load", "three")):
        record(page, [line(rows[name], revision)], True, 0)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    assert [each.split()[-2] for each in text.splitlines() if "drawn" in each] == ["two", "three"]
    assert "| **all** |  | 6 | 4 | 2 |" in text


def growth(cost: Callable[[int], float]) -> Growth:
    sizes = (37, 3_700, 11_100, 37_000)
    costs = tuple(Cost(seconds=cost(size), mib=cost(size), calls=0) for size in sizes)
    return Growth(name="a stage", sizes=sizes, costs=costs)


@pytest.mark.parametrize("power", [0.8, 1.0, 1.3, 2.0])
def test_a_slope_is_the_power_of_what_grows(power: float) -> None:
    found = growth(lambda size: 50 + size**power)
    for what in ("seconds", "mib"):
        assert found.slope(what) == pytest.approx(power, abs=0.02)
    wrong = found.worse_than({"seconds": BOUND, "mib": BOUND})
    assert len(wrong) == (2 if power > BOUND else 0)


@pytest.mark.parametrize(("power", "worse"), [(1.0, False), (2.0, True)])
def test_memory_that_the_first_size_needs_for_something_else_hides_no_growth(power: float, worse: bool) -> None:
    """The most of several moments: 25 MiB at first, and what grows is above it from the second size on."""
    found = growth(lambda size: max(25, 270 * (size / 37_000) ** power + (0 if worse else 2)))
    assert bool(found.worse_than({"mib": BOUND})) is worse


def test_what_does_not_grow_is_flat() -> None:
    assert growth(lambda size: 100 + size / 10_000).slope("mib") is None
