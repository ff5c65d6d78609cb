"""Both mAP protocols: golden results of the peers, published numbers, and plain oracles."""

import csv
import gzip
import json
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdfa.data.annotations import Annotations, Video, read_annotations
from rdfa.data.detections import Detections, collect_detections, read_detections
from rdfa.data.thumos_kit import read_kit_annotations, read_kit_detections
from rdfa.errors import RdfaError
from rdfa.evaluation.average_precision import mean_average_precision
from tests.comparisons import Compare, Golden

pytestmark = pytest.mark.evaluation

SHARED = Path(__file__).resolve().parents[3] / "shared"
TIOUS = [0.5, 0.75, 0.95]


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


@pytest.fixture(scope="module")
def anetlike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("golden") / "anetlike.json"
    path.write_bytes(gzip.decompress(shared("golden/eval_anetlike_pred.json.gz").read_bytes()))
    return path


def truth(*rows: tuple[str, float, float, str], classes: Iterable[str] = (), also: Iterable[str] = ()) -> Annotations:
    """Annotations from (video, start, end, label); `also` names videos without a segment."""
    names = dict.fromkeys([row[0] for row in rows] + list(also))
    videos = []
    for name in names:
        own = [row for row in rows if row[0] == name]
        segments = np.array([row[1:3] for row in own], dtype=float).reshape(-1, 2)
        videos.append(Video(name, "test", 100.0, None, segments, tuple(row[3] for row in own)))
    return Annotations(tuple(videos), tuple(sorted({row[3] for row in rows} | set(classes))))


def found(*rows: tuple[str, float, float, str, float]) -> Detections:
    """Detections from (video, start, end, label, score)."""
    classes = sorted({row[3] for row in rows})
    names = dict.fromkeys(row[0] for row in rows)
    own = {name: [row for row in rows if row[0] == name] for name in names}
    return collect_detections(
        (
            (name, [row[1:3] for row in mine], [row[4] for row in mine], [classes.index(row[3]) for row in mine])
            for name, mine in own.items()
        ),
        classes,
    )


PEERS = ("actionformer", "opentad", "anet", "rdfa")
FLOAT32 = {"mAP": 1e-8, "AP": 1e-7}
"""Bounds for the released RDFA-S6's copy of the evaluator, which adds in float32; 1e-9 for the others."""


def files(name: str, *others: str) -> tuple[str, ...]:
    return tuple(f"eval_{name}_{other}" for other in (*others, "expected.json"))


def check_against_golden(
    compare: Compare, expected_file: Path, name: str, peer: str, annotations: Annotations, detections: Detections
) -> None:
    golden = json.loads(expected_file.read_text())
    result = mean_average_precision(annotations, detections, golden["tiou"], "activitynet")
    expected, bounds = golden["runs"][peer], FLOAT32 if peer == "rdfa" else {}
    what, bound = f"evaluation {name}, as {peer}", bounds.get("mAP", 1e-9)
    compare(f"{what}: mAP", result.mean, expected["mAP"], bound, absolute=True)
    compare(f"{what}: average", result.average, expected["average"], bound, absolute=True)
    assert list(result.classes) == sorted(expected["ap_per_class"])
    per_class = np.array([expected["ap_per_class"][label] for label in result.classes]).T
    compare(f"{what}: AP per class", result.per_class, per_class, bounds.get("AP", 1e-9), absolute=True)
    assert result.ground_truth == expected["n_gt"]


@pytest.mark.parity
@pytest.mark.golden(*files("thumos", "pred.json"))
@pytest.mark.parametrize("peer", PEERS)
def test_thumos_sized_results_equal_those_of_each_peer(golden: Golden, compare: Compare, peer: str) -> None:
    annotations = read_annotations(shared("data/thumos14/thumos14.json"), faulty="keep").subset("Test")
    detections = read_detections(golden("eval_thumos_pred.json"))
    check_against_golden(compare, golden("eval_thumos_expected.json"), "thumos", peer, annotations, detections)


@pytest.mark.parity
@pytest.mark.golden(*files("anetlike", "pred.json.gz", "gt.json"))
@pytest.mark.parametrize("peer", PEERS)
def test_activitynet_sized_results_equal_those_of_each_peer(
    golden: Golden, compare: Compare, peer: str, anetlike: Path
) -> None:
    annotations = read_annotations(golden("eval_anetlike_gt.json"), faulty="keep").subset("validation")
    expected = golden("eval_anetlike_expected.json")
    check_against_golden(compare, expected, "anetlike", peer, annotations, read_detections(anetlike))


@pytest.mark.parity
@pytest.mark.golden(*files("corner", "pred.json", "gt.json"))
def test_the_corner_cases_come_out_as_in_opentad(golden: Golden, compare: Compare) -> None:
    # The other peers count detections of a class without ground truth for another class; that is not followed.
    annotations = read_annotations(golden("eval_corner_gt.json"), faulty="keep").subset("validation")
    detections = read_detections(golden("eval_corner_pred.json"))
    check_against_golden(compare, golden("eval_corner_expected.json"), "corner", "opentad", annotations, detections)
    remarks = mean_average_precision(annotations, detections, [0.5], "activitynet").remarks
    assert remarks.outside_videos == {"nogt": 1}
    assert remarks.absent_classes == {"z": 2}
    assert remarks.unknown_labels == {}
    assert remarks.dropped_ground_truth == 2


def test_the_sample_of_the_activitynet_toolkit_reaches_1_by_the_toolkits_rule(tmp_path: Path) -> None:
    database: dict[str, Any] = {}
    with shared("data/activitynet13/activitynet_v1-3_valid_tsp_groundtruth.csv").open() as file:
        for row in csv.DictReader(file):
            if row["temporal-region-label"] == "Action":
                head = {"subset": "validation", "duration": float(row["video-duration"]), "annotations": []}
                database.setdefault(row["video-name"], head)["annotations"].append(
                    {"segment": [float(row["t-start"]), float(row["t-end"])], "label": row["action-label"]}
                )
    (tmp_path / "gt.json").write_text(json.dumps({"database": database}))
    annotations = read_annotations(tmp_path / "gt.json", faulty="keep").subset("validation")
    detections = read_detections(shared("data/activitynet13/activitynet_sample_detection_prediction.json"))
    tious = np.linspace(0.5, 0.95, 10).tolist()
    result = mean_average_precision(annotations, detections, tious, "activitynet", count_repeated=True)
    assert result.mean.tolist() == [1.0] * 10
    assert result.ground_truth == 7654
    without = mean_average_precision(annotations, detections, tious, "activitynet")
    assert without.remarks.dropped_ground_truth == 24
    assert 0.998 < without.average < 1


@pytest.mark.parametrize(
    ("threshold", "published"),
    [(0.1, 60.1), (0.2, 56.7), (0.3, 50.1), (0.4, 41.3), (0.5, 31.0), (0.6, 19.1), (0.7, 9.9)],
)
def test_the_thumos14_protocol_gives_the_published_numbers_of_cbr(threshold: float, published: float) -> None:
    annotations = read_kit_annotations(shared("data/thumos14/official/annotation_test"))
    detections = read_kit_detections(shared(f"data/thumos14/cbr_detections/CBR_THUMOS-14_IoU{threshold}.txt"))
    result = mean_average_precision(annotations, detections, [threshold], "thumos14")
    assert 100 * result.average == pytest.approx(published, abs=0.1)
    assert len(result.classes) == 20
    assert result.ground_truth == 3358


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_an_activitynet_sized_evaluation_is_quick_and_small(anetlike: Path) -> None:
    """Budget: 2 s and 300 MB, loading included; twice the time is allowed here for busy machines."""
    gt = shared("golden/eval_anetlike_gt.json")
    program = (
        "import numpy as np, sys\n"
        "from rdfa.data.annotations import read_annotations\n"
        "from rdfa.data.detections import read_detections\n"
        "from rdfa.evaluation.average_precision import mean_average_precision\n"
        "gt = read_annotations(sys.argv[1]).subset('validation')\n"
        "mean_average_precision(gt, read_detections(sys.argv[2]), np.linspace(.5, .95, 10), 'activitynet')\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program, str(gt), str(anetlike)], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert int(done.stdout) < 300_000  # kB; ru_maxrss would start from the parent's
    assert after.ru_utime - before.ru_utime < 4


# The oracles: one class and one threshold at a time, detection by detection.


def ranked(detections: Detections, label: str) -> list[tuple[str, float, float]]:
    """Detections of a class by descending score, then video name, then place in the file."""
    rows = [
        (-score, detections.videos[video], row, *segment)
        for row, (score, video, segment, index) in enumerate(
            zip(
                detections.scores.tolist(),
                detections.video_index.tolist(),
                detections.segments.tolist(),
                detections.label_index.tolist(),
                strict=True,
            )
        )
        if detections.classes[index] == label
    ]
    return [(video, start, end) for _, video, _, start, end in sorted(rows)]


def overlap(one: tuple[float, float], other: tuple[float, float], hull: bool = False) -> float:
    inter = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    union = (one[1] - one[0]) + (other[1] - other[0]) - inter
    if hull:
        union = max(one[1], other[1]) - min(one[0], other[0])
    return inter / union if union else 0.0


def truth_of(annotations: Annotations, label: str, drop: bool) -> dict[str, list[tuple[float, float]]]:
    result: dict[str, list[tuple[float, float]]] = {}
    for video in annotations.videos:
        own = result.setdefault(video.name, [])
        for (start, end), its_label in zip(video.segments.tolist(), video.labels, strict=True):
            repeated = any(abs(start - s) <= 1e-3 and abs(end - e) <= 1e-3 for s, e in own)
            if its_label == label and not (drop and (repeated or end <= start)):
                own.append((start, end))
    return result


def plain_activitynet(annotations: Annotations, detections: Detections, label: str, threshold: float) -> float | None:
    segments = truth_of(annotations, label, drop=True)
    positives = sum(map(len, segments.values()))
    if positives == 0:
        return None
    free = {name: list(range(len(own))) for name, own in segments.items()}
    precision, recall, true = [], [], 0
    for rank, (video, start, end) in enumerate(ranked(detections, label), start=1):
        left = [index for index in free.get(video, []) if overlap((start, end), segments[video][index]) >= threshold]
        if left:
            best = max(left, key=lambda index: (overlap((start, end), segments[video][index]), -index))
            free[video].remove(best)
            true += 1
        precision.append(true / rank)
        recall.append(true / positives)
    area, previous = 0.0, 0.0
    for index, value in enumerate(recall):
        area += (value - previous) * max(precision[index:])
        previous = value
    return area


def plain_thumos14(annotations: Annotations, detections: Detections, label: str, threshold: float) -> float | None:
    segments = truth_of(annotations, label, drop=False)
    ambiguous = truth_of(annotations, "Ambiguous", drop=False)
    positives = sum(map(len, segments.values()))
    if positives == 0:
        return None
    candidates = ranked(detections, label)
    true: set[int] = set()
    for video, own in segments.items():
        for segment in own:
            free = [row for row, each in enumerate(candidates) if each[0] == video and row not in true]
            if free:
                best = max(free, key=lambda row: (overlap(segment, candidates[row][1:], hull=True), -row))
                if overlap(segment, candidates[best][1:], hull=True) > threshold:
                    true.add(best)
    total, rank, hits = 0.0, 0, 0
    for row, (video, start, end) in enumerate(candidates):
        excused = any(overlap((start, end), each) > 0 for each in ambiguous.get(video, []))
        if row in true or not excused:
            rank += 1
            if row in true:
                hits += 1
                total += hits / rank
    return total / positives


NAMES = ["v1", "v2", "v3"]
BOUNDS = st.tuples(st.integers(0, 10), st.integers(0, 10)).map(lambda pair: (min(pair), max(pair)))
TRUTH_ROWS = st.tuples(st.sampled_from(NAMES), BOUNDS, st.sampled_from([0.0, 5e-4]), st.sampled_from("ab"))
FOUND_ROWS = st.tuples(st.sampled_from([*NAMES, "outside"]), BOUNDS, st.sampled_from("abc"), st.integers(0, 6))


@st.composite
def problems(draw: st.DrawFn, ambiguous: bool) -> tuple[Annotations, Detections]:
    rows = [(video, a, b + shift, label) for video, (a, b), shift, label in draw(st.lists(TRUTH_ROWS, max_size=12))]
    rows.append(("v1", 1, 4, "a"))
    if ambiguous:
        intervals = draw(st.lists(st.tuples(st.sampled_from(NAMES), BOUNDS), max_size=3))
        rows += [(video, a, b, "Ambiguous") for video, (a, b) in intervals]
    hits = draw(st.lists(FOUND_ROWS, max_size=25))
    return truth(*rows), found(*((video, a, b, label, score / 6) for video, (a, b), label, score in hits))


THRESHOLDS = [0.1, 0.25, 1 / 3, 0.5, 0.75, 1.0]


@given(problem=problems(ambiguous=False))
@settings(deadline=None, max_examples=300)
def test_activitynet_equals_the_plain_loop_on_ties_repetitions_and_strangers(problem: Any) -> None:
    annotations, detections = problem
    result = mean_average_precision(annotations, detections, THRESHOLDS, "activitynet")
    for row, threshold in enumerate(THRESHOLDS):
        plain = {label: plain_activitynet(annotations, detections, label, threshold) for label in "abc"}
        expected = [value for value in plain.values() if value is not None]
        np.testing.assert_allclose(result.per_class[row], expected, rtol=0, atol=1e-12)
        assert result.mean[row] == pytest.approx(np.mean(expected), abs=1e-12)


@given(problem=problems(ambiguous=True))
@settings(deadline=None, max_examples=300)
def test_thumos14_equals_the_plain_loop_on_ties_repetitions_and_strangers(problem: Any) -> None:
    annotations, detections = problem
    result = mean_average_precision(annotations, detections, THRESHOLDS, "thumos14")
    for row, threshold in enumerate(THRESHOLDS):
        plain = {label: plain_thumos14(annotations, detections, label, threshold) for label in "abc"}
        expected = [value for value in plain.values() if value is not None]
        np.testing.assert_allclose(result.per_class[row], expected, rtol=0, atol=1e-12)


# The rules, one by one.


@pytest.mark.parametrize("protocol", ["activitynet", "thumos14"])
def test_the_order_of_videos_in_the_file_does_not_matter_even_with_ties(protocol: Any) -> None:
    annotations = truth(("a", 0, 4, "x"), ("b", 0, 4, "x"))
    hits = [("b", 0, 4, "x", 0.5), ("a", 6, 9, "x", 0.5), ("a", 0, 4, "x", 0.5)]
    results = [
        mean_average_precision(annotations, found(*rows), TIOUS, protocol).average
        for rows in (hits, hits[1:] + hits[:1])
    ]
    assert results[0] == results[1]


def test_a_threshold_met_exactly_counts_in_activitynet_and_not_in_thumos14() -> None:
    annotations, detections = truth(("a", 0, 4, "x")), found(("a", 0, 2, "x", 0.9))
    assert mean_average_precision(annotations, detections, [0.5], "activitynet").average == 1
    assert mean_average_precision(annotations, detections, [0.5], "thumos14").average == 0


def test_of_two_segments_that_overlap_equally_the_earlier_one_is_taken() -> None:
    segments = [("a", 0, 4, "x"), ("a", 4, 8, "x")]
    detections = found(("a", 2, 6, "x", 0.9), ("a", 0, 4, "x", 0.8))
    for rows, expected in ((segments, 0.5), (segments[::-1], 1.0)):
        assert mean_average_precision(truth(*rows), detections, [0.3], "activitynet").average == expected


def test_the_protocols_differ_in_who_chooses() -> None:
    annotations = truth(("a", 0, 10, "x"))
    detections = found(("a", 0, 6, "x", 0.9), ("a", 0, 10, "x", 0.8))
    assert mean_average_precision(annotations, detections, [0.5], "activitynet").average == 1
    assert mean_average_precision(annotations, detections, [0.5], "thumos14").average == 0.5


def test_detections_on_ambiguous_intervals_are_excused_in_thumos14_only() -> None:
    annotations = truth(("a", 0, 4, "x"), ("a", 20, 30, "Ambiguous"))
    detections = found(("a", 29, 40, "x", 0.9), ("a", 0, 4, "x", 0.8))
    result = mean_average_precision(annotations, detections, [0.5], "thumos14")
    assert result.average == 1
    assert result.classes == ("x",)
    assert result.remarks.absent_classes == {}
    assert mean_average_precision(annotations, detections, [0.5], "activitynet").classes == ("Ambiguous", "x")


def test_detections_in_other_videos_are_false_positives_and_named() -> None:
    annotations = truth(("a", 0, 4, "x"), also=["background"])
    detections = found(("z", 0, 4, "x", 0.9), ("background", 0, 4, "x", 0.8), ("a", 0, 4, "x", 0.7))
    for protocol in ("activitynet", "thumos14"):
        result = mean_average_precision(annotations, detections, TIOUS, protocol)
        assert result.average == pytest.approx(1 / 3)
        assert result.remarks.outside_videos == {"z": 1}


def test_labels_without_ground_truth_are_dropped_and_named() -> None:
    annotations = truth(("a", 0, 4, "x"), classes=["only in training"])
    detections = found(
        ("a", 0, 4, "only in training", 0.9),
        ("a", 0, 4, "misspelt", 0.8),
        ("z", 0, 4, "misspelt", 0.8),
        ("a", 0, 4, "x", 0.7),
    )
    result = mean_average_precision(annotations, detections, TIOUS, "activitynet")
    assert result.mean.tolist() == [1, 1, 1]
    assert result.detections == 1
    assert result.remarks.absent_classes == {"only in training": 1}
    assert result.remarks.unknown_labels == {"misspelt": 2}
    assert result.remarks.outside_videos == {}


def test_a_class_without_detections_has_ap_0_and_no_detection_gives_map_0() -> None:
    annotations = truth(("a", 0, 4, "x"), ("a", 5, 6, "y"))
    assert mean_average_precision(annotations, found(("a", 0, 4, "x", 1)), TIOUS, "activitynet").average == 0.5
    for protocol in ("activitynet", "thumos14"):
        nothing = mean_average_precision(annotations, found(), TIOUS, protocol)
        assert nothing.mean.tolist() == [0, 0, 0]


def test_repeated_ground_truth_counts_once_in_activitynet_and_as_often_as_written_in_thumos14() -> None:
    annotations = truth(("a", 0, 4, "x"), ("a", 0, 4.0005, "x"), ("a", 7, 7, "x"))
    detections = found(("a", 0, 4, "x", 0.9))
    assert mean_average_precision(annotations, detections, [0.5], "activitynet").average == 1
    assert mean_average_precision(annotations, detections, [0.5], "thumos14").average == pytest.approx(1 / 3)
    assert mean_average_precision(
        annotations, detections, [0.5], "activitynet", count_repeated=True
    ).average == pytest.approx(1 / 3)


def test_impossible_requests_are_refused() -> None:
    annotations, detections = truth(("a", 0, 4, "x")), found(("a", 0, 4, "x", 1))
    with pytest.raises(RdfaError, match=r"unknown protocol 'coco'; there are activitynet and thumos14"):
        mean_average_precision(annotations, detections, TIOUS, "coco")  # type: ignore[arg-type]
    for tious in ([], [0.0], [50.0], [float("nan")]):
        with pytest.raises(RdfaError, match=r"tIoU thresholds must be in \(0, 1\]"):
            mean_average_precision(annotations, detections, tious, "activitynet")
    with pytest.raises(RdfaError, match=r"there is no ground truth to evaluate against"):
        mean_average_precision(truth(also=["a"]), detections, TIOUS, "activitynet")


def test_the_result_is_plain_json() -> None:
    result = mean_average_precision(truth(("a", 0, 4, "x")), found(("b", 0, 4, "x", 1)), TIOUS, "thumos14")
    plain = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert plain["protocol"] == "thumos14"
    assert plain["mAP"] == [0, 0, 0]
    assert plain["ap"] == {"x": [0, 0, 0]}
    assert plain["remarks"]["outside_videos"] == {"b": 1}
