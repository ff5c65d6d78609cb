"""Recall metrics against ActionFormer's golden numbers and a plain transcription of the definition."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rdfa.data.annotations import Annotations, Video, read_annotations
from rdfa.data.detections import Detections, collect_detections, read_detections
from rdfa.errors import RdfaError
from rdfa.evaluation.proposals import average_recall, recall_at_multiples
from tests.comparisons import Compare, Golden

pytestmark = pytest.mark.evaluation


def check_recall(compare: Compare, expected_file: Path, name: str, truth: Annotations, found: Detections) -> None:
    expected = json.loads(expected_file.read_text())
    recall = recall_at_multiples(truth, found, expected["tiou"], (1, 5))
    peer = expected["runs"]["actionformer"]["recall_1x_5x"]
    compare(f"evaluation {name}, as actionformer: recall at 1x and 5x", recall, peer, 1e-9, absolute=True)


@pytest.mark.parity
@pytest.mark.golden("eval_thumos_expected.json", "eval_thumos_pred.json")
def test_recall_at_multiples_equals_actionformers(golden: Golden, compare: Compare, shared: Path) -> None:
    truth = read_annotations(shared / "data" / "thumos14" / "thumos14.json", faulty="keep").subset("Test")
    found = read_detections(golden("eval_thumos_pred.json"))
    check_recall(compare, golden("eval_thumos_expected.json"), "thumos", truth, found)


ANETLIKE = [f"eval_anetlike_{part}" for part in ("gt.json", "pred.json.gz", "expected.json")]


@pytest.mark.parity
@pytest.mark.golden(*ANETLIKE)
def test_recall_at_multiples_equals_actionformers_on_activitynets_size(
    golden: Golden, compare: Compare, tmp_path: Path
) -> None:
    truth, packed, expected = map(golden, ANETLIKE)
    plain = tmp_path / "anetlike.json"
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    annotations = read_annotations(truth, faulty="keep").subset("validation")
    check_recall(compare, expected, "anetlike", annotations, read_detections(plain))


NAMES = ["v1", "v2", "v3", "v4"]
BOUNDS = st.tuples(st.integers(0, 10), st.integers(1, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))
ROWS = st.tuples(BOUNDS, st.sampled_from("xy"))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Annotations, Detections]:
    videos = []
    for name in NAMES:
        rows = draw(st.lists(ROWS, max_size=4, unique=True))
        segments = np.array([bounds for bounds, _ in rows], dtype=float).reshape(-1, 2)
        videos.append(Video(name, "test", 20.0, None, segments, tuple(label for _, label in rows)))
    videos.append(Video("v5", "test", 20.0, None, np.array([[1.0, 3.0]]), ("x",)))
    found = []
    for name in [*NAMES, "outside"]:
        own = draw(st.lists(st.tuples(ROWS, st.integers(0, 5)), max_size=8))
        columns = ([bounds for (bounds, _), _ in own], [score for _, score in own], ["xy".index(r[1]) for r, _ in own])
        found.append((name, np.array(columns[0]).reshape(-1, 2), *columns[1:]))
    return Annotations(tuple(videos), ("x", "y")), collect_detections(found, "xy")


def overlap(one: Any, other: Any) -> float:
    inter = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return float(inter / ((one[1] - one[0]) + (other[1] - other[0]) - inter))


def best_first(detections: Detections, video: str, label: str | None = None) -> list[list[float]]:
    rows = [
        (-detections.scores[row], row)
        for row in range(len(detections))
        if detections.videos[detections.video_index[row]] == video
        and label in (None, detections.classes[detections.label_index[row]])
    ]
    return [detections.segments[row].tolist() for _, row in sorted(rows)]


def plain_average_recall(
    annotations: Annotations, proposals: Detections, tious: list[float], most: int
) -> tuple[NDArray[Any], float]:
    """Written after the text of ActivityNet's evaluator: video by video, threshold by threshold."""
    videos = [video for video in annotations.videos if video.labels]
    if len(proposals) == 0:
        return np.zeros((len(tious), most)), 0.0
    ratio = most * float(len(videos)) / len(proposals)
    kept = []
    for video in videos:
        own = best_first(proposals, video.name)
        kept.append(own[: min(int(len(own) * ratio), len(own))])
    total = sum(map(len, kept))
    if total == 0:
        return np.zeros((len(tious), most)), 0.0
    shares = np.arange(1, most + 1) / most * (most * float(len(videos)) / total)
    recall = np.zeros((len(tious), most))
    for row, threshold in enumerate(tious):
        for column, share in enumerate(shares):
            matches = 0
            for video, own in zip(videos, kept, strict=True):
                looked_at = own[: min(int(len(own) * share), len(own))]
                matches += sum(
                    any(overlap(each, segment) >= threshold for each in looked_at) for segment in video.segments
                )
            recall[row, column] = matches / sum(len(video.labels) for video in videos)
    numbers = shares * total / len(videos)
    return recall, float(np.trapezoid(recall.mean(axis=0), numbers) / numbers[-1])


@given(problem=problems(), most=st.sampled_from([1, 3, 10]))
@settings(deadline=None, max_examples=150)
def test_average_recall_equals_the_plain_loop(problem: Any, most: int) -> None:
    tious = [0.25, 0.5, 1.0]
    annotations, proposals = problem
    result = average_recall(annotations, proposals, tious, max_proposals=most)
    recall, auc = plain_average_recall(annotations, proposals, tious, most)
    np.testing.assert_allclose(result.recall, recall, rtol=0, atol=1e-12)
    assert result.auc == pytest.approx(auc, abs=1e-12)
    assert result.at(most) == pytest.approx(recall[:, -1].mean(), abs=1e-12)


@given(problem=problems())
@settings(deadline=None, max_examples=100)
def test_recall_at_multiples_equals_the_plain_loop(problem: Any) -> None:
    annotations, detections = problem
    tious, multiples = [0.25, 0.5, 1.0], (1, 2)
    result = recall_at_multiples(annotations, detections, tious, multiples)
    for row, threshold in enumerate(tious):
        for column, multiple in enumerate(multiples):
            shares = []
            for label in "xy":
                hits, total = 0, 0
                for video in annotations.videos:
                    own = [s for s, name in zip(video.segments, video.labels, strict=True) if name == label]
                    looked_at = best_first(detections, video.name, label)[: multiple * len(own)]
                    hits += sum(any(overlap(each, segment) >= threshold for each in looked_at) for segment in own)
                    total += len(own)
                if total:
                    shares.append(hits / total)
            assert result[row, column] == pytest.approx(np.mean(shares), abs=1e-12)


def test_perfect_proposals_are_all_found() -> None:
    video = Video("a", "test", 20.0, None, np.array([[1.0, 3.0], [5.0, 9.0]]), ("x", "y"))
    annotations = Annotations((video,), ("x", "y"))
    proposals = collect_detections([("a", video.segments, [0.9, 0.8], [0, 0])], ["proposal"])
    result = average_recall(annotations, proposals, [0.5, 0.95], max_proposals=2)
    assert result.recall.tolist() == [[0.5, 1], [0.5, 1]]
    assert result.numbers.tolist() == [1, 2]
    assert result.as_json()["AR@1"] == 0.5
    assert "AR@100" not in result.as_json()
    with pytest.raises(RdfaError, match=r"AR@3 is not available: recall was computed for 1 to 2 proposals"):
        result.at(3)


def test_no_proposal_has_no_recall_and_no_ground_truth_is_an_error() -> None:
    annotations = Annotations((Video("a", "test", 20.0, None, np.array([[1.0, 3.0]]), ("x",)),), ("x",))
    nothing = collect_detections([], ["x"])
    result = average_recall(annotations, nothing, [0.5])
    assert (result.auc, result.at(100)) == (0, 0)
    assert recall_at_multiples(annotations, nothing, [0.5]).tolist() == [[0, 0]]
    with pytest.raises(RdfaError, match=r"no ground truth"):
        average_recall(Annotations((), ()), nothing, [0.5])
