"""The bootstrap over videos: a draw is what evaluating its videos would give, and an interval covers what it says."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdfa.data.annotations import Annotations, Video
from rdfa.data.detections import Detections
from rdfa.errors import RdfaError
from rdfa.evaluation.average_precision import mean_average_precision
from rdfa.evaluation.bootstrap import draw_videos, replicate_average
from tests.evaluation.test_average_precision import THRESHOLDS, found, problems, truth

pytestmark = pytest.mark.evaluation


def distinct(detections: Detections) -> Detections:
    """The same with no two scores equal: copies of a video take turns at equal scores, which weights cannot."""
    order = np.argsort(np.argsort(detections.scores, kind="stable"))
    scores = (order + 1) / (len(order) + 1)
    return Detections(
        videos=detections.videos,
        video_index=detections.video_index,
        segments=detections.segments,
        scores=scores,
        label_index=detections.label_index,
        classes=detections.classes,
    )


def drawn(annotations: Annotations, detections: Detections, copies: list[int]) -> tuple[Annotations, Detections]:
    """The data set with as many copies of each video as a draw has, written out."""
    videos = [
        Video(f"{video.name}~{copy}", video.subset, video.duration, video.fps, video.segments, video.labels)
        for video, count in zip(annotations.videos, copies, strict=True)
        for copy in range(count)
    ]
    number = dict(zip((video.name for video in annotations.videos), copies, strict=True))
    rows = []
    for index, video in enumerate(detections.video_index):
        name = detections.videos[video]
        start, end = detections.segments[index]
        label, score = detections.classes[detections.label_index[index]], float(detections.scores[index])
        names = [f"{name}~{copy}" for copy in range(number[name])] if name in number else [name]
        rows += [(each, start, end, label, score) for each in names]
    return Annotations(tuple(videos), annotations.classes), found(*rows)


@pytest.mark.parametrize(("protocol", "most"), [("activitynet", 3), ("thumos14", 1)])
@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_a_draw_is_what_evaluating_its_copies_of_the_videos_gives(
    protocol: Any, most: int, data: st.DataObject
) -> None:
    annotations, detections = data.draw(problems(ambiguous=protocol == "thumos14"))
    detections = distinct(detections)
    count = len(annotations.videos)
    copies = data.draw(st.lists(st.integers(0, most), min_size=count, max_size=count))
    copies[0] = max(copies[0], 1)  # else there may be no ground truth at all
    if not any(label != "Ambiguous" for label in annotations.videos[0].labels):
        return
    expanded = drawn(annotations, detections, copies)
    (value,) = replicate_average(annotations, detections, THRESHOLDS, protocol, np.array([copies]))
    try:
        expected = mean_average_precision(*expanded, THRESHOLDS, protocol).average
    except RdfaError:  # no ground truth was drawn
        expected = np.nan
    assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_draws_have_as_many_videos_as_there_are_and_follow_from_the_seed() -> None:
    draws = draw_videos(40, 500, seed=3)
    assert draws.shape == (500, 40)
    assert (draws.sum(axis=1) == 40).all()
    assert (draws == draw_videos(40, 500, seed=3)).all()
    assert (draws != draw_videos(40, 500, seed=4)).any()
    assert draws.mean() == 1
    assert (draws == 0).mean() == pytest.approx((1 - 1 / 40) ** 40, abs=0.02)  # how often a video is not drawn


def test_many_detections_are_taken_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    annotations = truth(*((f"v{index}", 0, 4, "x") for index in range(9)))
    detections = found(*((f"v{index}", 0, 3 + index % 3, "x", 0.1 + index / 20) for index in range(9)))
    draws = draw_videos(9, 50, seed=0)
    whole = replicate_average(annotations, detections, THRESHOLDS, "activitynet", draws)
    monkeypatch.setattr("rdfa.evaluation.bootstrap.WEIGHTS_AT_ONCE", 20)
    assert (replicate_average(annotations, detections, THRESHOLDS, "activitynet", draws) == whole).all()


def test_a_draw_without_ground_truth_is_not_a_number() -> None:
    annotations, detections = truth(("a", 0, 4, "x"), also=["b"]), found(("b", 0, 4, "x", 0.5))
    assert np.isnan(replicate_average(annotations, detections, [0.5], "activitynet", np.array([[0, 2]]))).all()
