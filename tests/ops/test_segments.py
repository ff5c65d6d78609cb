"""tIoU against arithmetic by hand."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rdfa.ops.segments import intersection, overlap_over_hull, tiou, tiou_matrix

SEGMENTS = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=8
)


def exact_tiou(first: tuple[int, int], second: tuple[int, int]) -> Fraction:
    """Counts unit steps, which integers allow."""
    one, other = set(range(*first)), set(range(*second))
    return Fraction(len(one & other), len(one | other)) if one | other else Fraction(0)


@given(first=SEGMENTS, second=SEGMENTS)
def test_the_matrix_holds_the_tiou_of_each_pair(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    one, other = np.array(first, dtype=float), np.array(second, dtype=float)
    expected = [[float(exact_tiou(a, b)) for b in second] for a in first]
    assert np.allclose(tiou_matrix(one, other), expected, rtol=1e-15, atol=0)
    assert np.array_equal(tiou_matrix(one, other), tiou_matrix(other, one).T)
    assert np.allclose(overlap_over_hull(one[:, None], other[None]), expected, rtol=1e-15, atol=0)


def test_segments_are_compared_row_by_row() -> None:
    first, second = np.array([[0.0, 4], [5, 6]]), np.array([[2.0, 6], [5, 6]])
    assert tiou(first, second).tolist() == [1 / 3, 1]
    assert intersection(first, second).tolist() == [2, 1]
    assert intersection(first, second[::-1]).tolist() == [0, 1]


def test_two_segments_of_no_length_do_not_overlap() -> None:
    point = np.array([[3.0, 3]])
    assert tiou_matrix(point, point).tolist() == [[0]]
    assert overlap_over_hull(point, point).tolist() == [0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_precision_of_the_input_is_kept(dtype: type) -> None:
    segments: NDArray[Any] = np.array([[0, 4], [1, 5]], dtype=dtype)
    assert tiou_matrix(segments, segments).dtype == dtype


def test_no_segments_give_an_empty_matrix() -> None:
    assert tiou_matrix(np.zeros((0, 2)), np.zeros((3, 2))).shape == (0, 3)
