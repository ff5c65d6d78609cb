"""NMS and voting against ActionFormer's extension (golden) and a plain implementation (oracle)."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rdfa.ops.nms import nms, vote
from tests.comparisons import Compare, Golden

pytestmark = pytest.mark.evaluation

FILE = "nms_n300.npz"


@pytest.mark.parity
@pytest.mark.golden(FILE)
@pytest.mark.parametrize("peer", ["actionformer", "rdfa"])
@pytest.mark.parametrize("voting", ["vote", "novote"])
@pytest.mark.parametrize("classes", ["multiclass", "agnostic"])
@pytest.mark.parametrize("method", ["hard", "soft"])
def test_batched_nms_equals_the_extension(
    golden: Golden, compare: Compare, method: str, classes: str, voting: str, peer: str
) -> None:
    given = np.load(golden(FILE))
    segments, scores, labels = nms(
        given["segments"],
        given["scores"],
        given["labels"],
        method="hard" if method == "hard" else "gaussian",
        tiou_threshold=float(given["iou_threshold"]),
        sigma=float(given["sigma"]),
        min_score=float(given["min_score"]),
        max_segments=int(given["max_seg_num"]),
        multiclass=classes == "multiclass",
        voting_threshold=float(given["voting_thresh"]) if voting == "vote" else 0.0,
        voting_weight="score" if peer == "rdfa" else "score_times_tiou",
    )
    # The references never vote in multiclass mode, so there is one golden for both.
    key = f"{method}_{classes}_{'novote' if classes == 'multiclass' else voting}_{peer}"
    what = f"NMS {method}, {classes}, {voting}, as {peer}"
    compare(f"{what}: labels", labels, given[f"{key}_labels"], 0)
    # Which segments and in which order is equal; a score may be one rounding of expf apart, a vote a few of a sum.
    compare(f"{what}: scores", scores, given[f"{key}_scores"], 1.2e-7)
    compare(f"{what}: segments", segments, given[f"{key}_segments"], 5e-7 if voting == "vote" else 0)
    assert scores.dtype == segments.dtype == np.float32


@pytest.mark.parity
@pytest.mark.golden(FILE)
@pytest.mark.parametrize("method", ["hard", "linear", "gaussian"])
def test_the_bare_soft_nms_equals_the_extension(golden: Golden, compare: Compare, method: Any) -> None:
    given = np.load(golden(FILE))
    expected, rows = given[f"op_softnms_{method}_dets"], given[f"op_softnms_{method}_inds"]
    segments, scores, labels = nms(
        given["segments"], given["scores"], given["labels"], method=method, max_segments=None, multiclass=False
    )
    compare(f"bare soft-NMS, {method}: segments", segments, expected[:, :2], 0)
    compare(f"bare soft-NMS, {method}: scores", scores, expected[:, 2], 1.2e-7)
    compare(f"bare soft-NMS, {method}: labels", labels, given["labels"][rows], 0)


@pytest.mark.parity
@pytest.mark.golden(FILE)
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.75])
def test_the_bare_hard_nms_equals_the_extension(golden: Golden, compare: Compare, threshold: float) -> None:
    given = np.load(golden(FILE))
    rows = given[f"op_nms_iou{threshold}_keep_inds"]
    segments, scores, labels = nms(
        given["segments"],
        given["scores"],
        given["labels"],
        method="hard",
        tiou_threshold=threshold,
        min_score=0,
        max_segments=None,
        multiclass=False,
    )
    compare(f"bare hard NMS at {threshold}: segments", segments, given["segments"][rows], 0)
    compare(f"bare hard NMS at {threshold}: scores", scores, given["scores"][rows], 0)
    compare(f"bare hard NMS at {threshold}: labels", labels, given["labels"][rows], 0)


def overlap(one: NDArray[Any], other: NDArray[Any], offset: float = 0.0) -> float:
    inter = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    union = (one[1] - one[0] + offset) + (other[1] - other[0] + offset) - inter
    return float(inter / union) if union else 0.0


def plain_nms_of_one_class(
    segments: NDArray[Any],
    scores: NDArray[Any],
    rows: list[int],
    method: str,
    threshold: float,
    sigma: float,
    low: float,
) -> list[tuple[float, int]]:
    """The textbook loop: (score when taken, row)."""
    alive = {row: float(scores[row]) for row in rows if method != "hard" or low <= 0 or scores[row] > low}
    taken = []
    while alive:
        best = max(alive, key=lambda row: (alive[row], -row))
        taken.append((alive.pop(best), best))
        for row in list(alive):
            ratio = overlap(segments[best], segments[row], 1e-6)
            if method == "gaussian":
                alive[row] *= math.exp(-(ratio * ratio) / sigma)
            elif ratio >= threshold:
                alive[row] *= 0 if method == "hard" else 1 - ratio
            if (method == "hard" and ratio >= threshold) or (method != "hard" and alive[row] < low):
                del alive[row]
    return taken


@st.composite
def candidates(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    number = draw(st.integers(0, 25))
    starts = [draw(st.integers(0, 30)) for _ in range(number)]
    segments = np.array([(start, start + draw(st.integers(0, 12))) for start in starts], dtype=float).reshape(-1, 2)
    scores = np.array(draw(st.lists(st.integers(0, 40), min_size=number, max_size=number)), dtype=float) / 40
    labels = np.array(draw(st.lists(st.integers(0, 3), min_size=number, max_size=number)), dtype=np.int64)
    return segments, scores, labels


@given(
    given_=candidates(),
    method=st.sampled_from(["hard", "linear", "gaussian"]),
    multiclass=st.booleans(),
    threshold=st.sampled_from([0.1, 0.5, 0.75]),
    sigma=st.sampled_from([0.1, 0.5, 0.9]),
    min_score=st.sampled_from([0.0, 0.001, 0.3]),
    limit=st.sampled_from([None, 1, 5]),
)
@settings(deadline=None, max_examples=300)
def test_nms_equals_the_textbook_loop_class_by_class(
    given_: Any, method: Any, multiclass: bool, threshold: float, sigma: float, min_score: float, limit: int | None
) -> None:
    segments, scores, labels = given_
    kept = nms(
        segments,
        scores,
        labels,
        method=method,
        tiou_threshold=threshold,
        sigma=sigma,
        min_score=min_score,
        max_segments=limit,
        multiclass=multiclass,
    )
    groups = labels if multiclass else np.zeros_like(labels)
    expected = []
    for group in sorted(set(groups.tolist())):
        rows = np.flatnonzero(groups == group).tolist()
        taken = plain_nms_of_one_class(segments, scores, rows, method, threshold, sigma, min_score)
        expected += [(-score, group, place, row) for place, (score, row) in enumerate(taken)]
    expected = sorted(expected)[:limit]
    rows = [row for *_, row in expected]
    np.testing.assert_allclose(kept[1], [-score for score, *_ in expected], rtol=1e-12)
    assert np.array_equal(kept[0], segments[rows].reshape(-1, 2))
    assert np.array_equal(kept[2], labels[rows])


@given(
    given_=candidates(), weight=st.sampled_from(["score", "score_times_tiou"]), threshold=st.sampled_from([0.3, 0.7])
)
@settings(deadline=None, max_examples=150)
def test_voting_is_the_weighted_mean_of_the_neighbours(given_: Any, weight: Any, threshold: float) -> None:
    segments, scores, labels = given_
    kept, *_ = nms(segments, scores, labels, multiclass=False)
    voted, *_ = nms(segments, scores, labels, multiclass=False, voting_threshold=threshold, voting_weight=weight)
    for before, after in zip(kept, voted, strict=True):
        ratios = [overlap(before, segment) for segment in segments]
        weights = [
            score * (ratio if weight == "score_times_tiou" else 1) if ratio >= threshold else 0
            for score, ratio in zip(scores, ratios, strict=True)
        ]
        mean = np.average(segments, axis=0, weights=weights) if sum(weights) else before
        np.testing.assert_allclose(after, mean, rtol=1e-12)


@given(given_=candidates())
@settings(deadline=None, max_examples=50)
def test_a_limit_gives_the_beginning_of_the_unlimited_result(given_: Any) -> None:
    everything = nms(*given_, max_segments=None)
    for limit in (1, 3):
        for whole, part in zip(everything, nms(*given_, max_segments=limit), strict=True):
            assert np.array_equal(whole[:limit], part)


def test_equal_scores_are_taken_by_label_then_by_row() -> None:
    segments = np.array([[0, 1], [5, 6], [10, 11], [20, 21]], dtype=np.float32)
    labels = np.array([1, 0, 1, 0])
    kept = nms(segments, np.full(4, 0.5, dtype=np.float32), labels)
    assert kept[0][:, 0].tolist() == [5, 20, 0, 10]


def test_the_best_of_a_class_survives_the_minimum_score_as_in_the_extension() -> None:
    segments = np.array([[0.0, 1], [5, 6]])
    low = np.array([1e-4, 1e-5])
    assert len(nms(segments, low, np.array([0, 0]))[1]) == 1
    assert len(nms(segments, low, np.array([0, 1]))[1]) == 2
    assert len(nms(segments, low, np.array([0, 1]), method="hard")[1]) == 0


def test_no_candidates_give_no_segments() -> None:
    segments, scores, labels = nms(np.zeros((0, 2)), np.zeros(0), np.zeros(0, dtype=np.int64), voting_threshold=0.7)
    assert (segments.shape, scores.shape, labels.shape) == ((0, 2), (0,), (0,))


def test_the_input_is_left_as_it_was() -> None:
    segments, scores, labels = np.array([[0.0, 4], [1, 5]]), np.array([0.9, 0.8]), np.array([0, 0])
    nms(segments, scores, labels)
    assert segments.tolist() == [[0, 4], [1, 5]]
    assert scores.tolist() == [0.9, 0.8]


def test_a_segment_without_weighty_neighbours_is_not_moved() -> None:
    point = np.array([[3.0, 3]])
    assert vote(point, point, np.array([0.5]), 0.7).tolist() == [[3, 3]]
