"""What is measured beside the mAP: without labels, recall of segments that have several labels, sensitivity."""

from pathlib import Path

import numpy as np

from rdfa.data.annotations import Annotations, Video
from rdfa.data.detections import Detections, collect_detections
from rdfa.evaluation.average_precision import mean_average_precision
from rdfa.evaluation.diagnosis import diagnose
from rdfa.evaluation.judgement import judge, segments_once
from rdfa.evaluation.proposals import average_recall
from rdfa.params import compose
from rdfa.schema import Evaluation
from tests.conftest import ROOT

TIOUS = (0.5, 0.75)


def settings(*overrides: str) -> Evaluation:
    given = ("evaluation.tious=[0.5, 0.75]", "evaluation.bootstrap.replicates=20", *overrides)
    names = {"dataset": "thumos14", "model": "rdfa", "variant": "paper", "scale": "full"}
    return compose(**names, overrides=given, folder=ROOT / "params").run.evaluation


def example(labels: tuple[str, ...] = ("a", "b", "c")) -> tuple[Annotations, Detections]:
    """Ten videos with actions of three classes, and detections near them, half of them with the wrong label."""
    generator = np.random.default_rng(3)
    videos, rows = [], []
    for number in range(10):
        starts = np.sort(generator.uniform(0, 80, 4))
        segments = np.stack([starts, starts + generator.uniform(2, 15, 4)], axis=1)
        named = tuple(labels[int(share * len(labels))] for share in generator.random(4))
        videos.append(Video(f"v{number}", "test", 100.0, None, segments, named))
        moved = np.repeat(segments, 3, axis=0) + generator.normal(0, 1.5, (12, 2))
        moved[:, 1] = np.maximum(moved[:, 1], moved[:, 0] + 0.1)
        rows.append(
            (f"v{number}", moved, generator.uniform(0, 1, 12), (generator.random(12) * len(labels)).astype(int))
        )
    return Annotations(tuple(videos), labels), collect_detections(rows, labels)


def test_without_labels_the_map_is_that_of_one_class() -> None:
    truth, found = example()
    same, once = example(labels=("action",))
    judged = judge(truth, found, settings("evaluation.agnostic=true"))
    expected = mean_average_precision(same, once, TIOUS, "activitynet")
    # The same random numbers draw the labels, so segments and scores of both examples are equal.
    np.testing.assert_array_equal(judged.precision.mean, expected.mean)
    assert judged.precision.average > judge(truth, found, settings()).precision.average
    assert judged.as_json()["agnostic"] is True


def test_recall_counts_a_segment_with_two_labels_once(tmp_path: Path) -> None:
    truth, found = example()
    columns = (found.video_index, found.segments, found.scores, found.label_index)
    videos, segments, scores, label_index = (np.concatenate([each, each]) for each in columns)
    scores[len(found) :] *= 0.3
    doubled = Detections(found.videos, videos, segments, scores, label_index, found.classes)
    kept = segments_once(doubled)
    assert sorted(map(tuple, kept.segments.tolist())) == sorted(map(tuple, found.segments.tolist()))
    np.testing.assert_array_equal(np.sort(kept.scores), np.sort(found.scores))
    recall = "evaluation.recall={tious: [0.5, 0.75], numbers: [1, 5]}"
    result = judge(truth, doubled, settings(recall)).as_json()["average_recall"]
    expected = average_recall(truth, found, TIOUS, 5)
    assert result == {"tiou": [0.5, 0.75], "AUC": expected.auc, "AR@1": expected.at(1), "AR@5": expected.at(5)}


def test_sensitivity_is_the_diagnosis_s_by_the_characteristic_that_is_asked_for() -> None:
    truth, found = example()
    asked = "evaluation.sensitivity={characteristic: length, bins: quantiles}"
    result = judge(truth, found, settings(asked)).as_json()["sensitivity"]
    whole = diagnose(truth, found, TIOUS).as_json()
    assert result["bins"] == whole["characteristics"]["length"]["bins"]
    assert result["sensitivity"] == whole["characteristics"]["length"]["sensitivity"]
    assert result["average_mAP_N"] == whole["average_mAP_N"]
