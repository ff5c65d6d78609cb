"""The parallel matching against taking turns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdfa.evaluation import matching
from rdfa.evaluation.matching import match_in_turn, overlapping_pairs
from rdfa.ops.segments import tiou

pytestmark = pytest.mark.evaluation


@given(lists=st.lists(st.lists(st.integers(0, 9), unique=True), max_size=12))
@settings(deadline=None, max_examples=300)
def test_the_rounds_end_where_taking_turns_ends(lists: list[list[int]]) -> None:
    pairs = [(chooser, chosen) for chooser, wishes in enumerate(lists) for chosen in wishes]
    taken: set[int] = set()
    expected = []
    for chooser, wishes in enumerate(lists):
        free = [wish for wish in wishes if wish not in taken]
        if free:
            taken.add(free[0])
            expected.append((chooser, free[0]))
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    matched = match_in_turn(columns[:, 0], columns[:, 1])
    assert [pairs[index] for index in matched] == expected


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
def test_pairs_are_found_whatever_the_size_of_the_pieces(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", at_once)
    random = np.random.default_rng(0)
    keys, truth_keys = random.integers(-1, 4, 50), random.integers(0, 4, 20)
    segments, truths = (np.sort(random.integers(0, 20, (number, 2)), axis=1).astype(float) for number in (50, 20))
    rows, partners, overlaps = overlapping_pairs(keys, segments, truth_keys, truths, tiou, 0.3)
    expected = [
        (row, partner)
        for row in range(50)
        for partner in range(20)
        if keys[row] == truth_keys[partner] and tiou(segments[row], truths[partner]) >= 0.3
    ]
    assert list(zip(rows.tolist(), partners.tolist(), strict=True)) == expected
    assert np.array_equal(overlaps, tiou(segments[rows], truths[partners]))
