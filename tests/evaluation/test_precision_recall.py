"""Precision-recall curves: their area is the mAP, and a curve worked out by hand."""

import numpy as np
import pytest

from rdfa.data.annotations import Annotations, Video
from rdfa.data.detections import collect_detections
from rdfa.evaluation.average_precision import mean_average_precision
from rdfa.evaluation.precision_recall import precision_recall

pytestmark = pytest.mark.evaluation


def test_a_curve_is_what_one_works_out_by_hand() -> None:
    """Four instances; by score: found, wrong, found, wrong, wrong, found; the fourth is never found."""
    truth = np.array([[0.0, 10.0], [20.0, 30.0], [40.0, 50.0], [60.0, 70.0]])
    video = Video("v", "test", 100.0, None, truth, ("a",) * 4)
    segments = np.array([[0.0, 10.0], [90.0, 95.0], [20.0, 30.0], [85.0, 89.0], [80.0, 84.0], [40.0, 50.0]])
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    detections = collect_detections([("v", segments, scores, np.zeros(6, dtype=int))], ("a",))
    found = precision_recall(Annotations((video,), ("a",)), detections, [0.5], steps=8)
    assert found.recall == pytest.approx(np.arange(1, 16, 2) / 16)
    assert found.precision[0] == pytest.approx([1, 1, 2 / 3, 2 / 3, 1 / 2, 1 / 2, 0, 0])


def test_the_area_under_a_curve_is_the_map() -> None:
    random = np.random.default_rng(0)
    rows, videos = [], []
    for number in range(10):
        starts = np.sort(random.choice(np.arange(0, 90, 9), 4, replace=False)).astype(float)
        segments = np.stack([starts, starts + random.uniform(2, 8, 4)], axis=1)
        videos.append(Video(f"v{number}", "test", 100.0, None, segments, ("a", "b", "a", "c")))
        noisy = np.sort(np.repeat(segments, 3, axis=0) + random.normal(0, 2, (12, 2)), axis=1)
        rows.append((f"v{number}", noisy, random.uniform(size=12), random.integers(0, 3, 12)))
    truth, detections = Annotations(tuple(videos), ("a", "b", "c")), collect_detections(rows, ("a", "b", "c"))
    tious = [0.3, 0.5, 0.7]
    # 20, 10 and 10 instances: with a multiple of these as steps the sum over the curve is exact.
    curves = precision_recall(truth, detections, tious, steps=60)
    expected = mean_average_precision(truth, detections, tious, "activitynet").mean
    assert curves.precision.mean(axis=1) == pytest.approx(expected, abs=1e-12)
    assert 0.05 < expected[1] < 0.95
