"""The diagnosis of DETAD: each kind of error by hand, plain oracles, and sums that must come out."""

import json
import math
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdfa.cli import main
from rdfa.data.annotations import Annotations, Video, read_annotations, write_annotations
from rdfa.data.detections import Detections, collect_detections, read_detections, write_detections
from rdfa.errors import RdfaError
from rdfa.evaluation.average_precision import mean_average_precision
from rdfa.evaluation.diagnosis import Diagnosis, diagnose
from rdfa.evaluation.diagnosis.characteristics import ACTIVITYNET, THUMOS14, Bins, quantile_bins
from rdfa.evaluation.diagnosis.false_positives import KINDS, classify
from rdfa.evaluation.diagnosis.matched import match

pytestmark = pytest.mark.evaluation

TIOUS = [0.3, 0.5, 0.7]
FORMATS = ("svg", "png")
Truth = tuple[str, float, float, str]
Found = tuple[str, float, float, str, float]


def truth(*rows: Truth, durations: dict[str, float] | None = None, also: Iterable[str] = ()) -> Annotations:
    names = dict.fromkeys([row[0] for row in rows] + list(also))
    videos = []
    for name in names:
        own = [row for row in rows if row[0] == name]
        segments = np.array([row[1:3] for row in own], dtype=float).reshape(-1, 2)
        duration = (durations or {}).get(name, 100.0)
        videos.append(Video(name, "test", duration, None, segments, tuple(row[3] for row in own)))
    return Annotations(tuple(videos), tuple(sorted({row[3] for row in rows})))


def found(*rows: Found) -> Detections:
    classes = sorted({row[3] for row in rows})
    own = {name: [row for row in rows if row[0] == name] for name in dict.fromkeys(row[0] for row in rows)}
    return collect_detections(
        (
            (name, [row[1:3] for row in mine], [row[4] for row in mine], [classes.index(row[3]) for row in mine])
            for name, mine in own.items()
        ),
        classes,
    )


def kinds_of(annotations: Annotations, detections: Detections, tiou: float = 0.5) -> list[str]:
    """Kind of each detection, by class and then by score."""
    matched = match(annotations, detections, np.array([tiou]))
    return [KINDS[kind] for kind in classify(matched, np.arange(len(matched.labels)))[0].tolist()]


def golden(shared: Path) -> tuple[Annotations, Detections]:
    annotations = read_annotations(shared / "data/thumos14/thumos14.json", faulty="keep").subset("Test")
    return annotations, read_detections(shared / "golden/eval_thumos_pred.json")


ONE = truth(("v", 10, 20, "a"), ("v", 40, 60, "b"))


@pytest.mark.parametrize(
    ("segment", "label", "kind"),
    [
        ((10, 20), "b", "wrong label"),
        ((10, 15), "b", "wrong label"),  # tIoU of exactly alpha
        ((13, 26), "a", "localisation"),
        ((10, 11), "a", "localisation"),  # tIoU of exactly 0.1
        ((13, 26), "b", "confusion"),
        ((19.5, 30), "a", "background"),
        ((70, 80), "a", "background"),
    ],
)
def test_an_error_is_named_by_overlap_and_class(segment: tuple[float, float], label: str, kind: str) -> None:
    assert kinds_of(ONE, found(("v", *segment, label, 0.5))) == [kind]


def test_the_second_to_find_an_instance_is_a_double_detection() -> None:
    detections = found(("v", 10, 20, "a", 0.8), ("v", 10, 19, "a", 0.9))
    assert kinds_of(ONE, detections) == ["true positive", "double detection"]


def test_a_detection_in_a_video_without_ground_truth_is_background() -> None:
    annotations = truth(("v", 10, 20, "a"), also=["empty"])
    detections = found(("empty", 10, 20, "a", 0.9), ("unknown", 10, 20, "a", 0.8), ("unknown", 10, 20, "a", 0.7))
    assert kinds_of(annotations, detections) == ["background"] * 3
    result = diagnose(annotations, detections, [0.5])
    assert result.outside == 2


def test_of_two_classes_at_the_same_place_the_detections_own_decides() -> None:
    annotations = truth(("v", 10, 20, "a"), ("v", 10, 20, "b"))
    detections = found(*[("v", 10, 20, label, score) for label in "ab" for score in (0.9, 0.8)])
    assert kinds_of(annotations, detections) == ["true positive", "double detection"] * 2


def test_removing_an_error_gains_what_it_cost() -> None:
    # One instance of each class: N = 1. The false positive above the true one halves the precision of class a.
    detections = found(("v", 70, 80, "a", 0.9), ("v", 10, 20, "a", 0.5), ("v", 40, 60, "b", 0.5))
    result = diagnose(ONE, detections, [0.5]).false_positives
    assert result.average == pytest.approx(0.75)
    assert dict(zip(KINDS[1:], result.impact.tolist(), strict=True)) == pytest.approx(
        dict.fromkeys(KINDS[1:-1], 0) | {"background": 0.25}
    )


def test_normalised_precision_does_not_favour_a_frequent_class() -> None:
    # Each class: one false positive for every true one, ranked first. Class b has three times as many instances.
    rows = [("v", 10 * index, 10 * index + 5, "a" if index == 0 else "b") for index in range(4)]
    hits = [(*row, 0.5) for row in rows]
    misses = [("w", 0, 5, "a", 0.9)] + [("w", 0, 5, "b", 0.9)] * 3
    result = diagnose(truth(*rows), found(*hits, *misses), [0.5])
    assert result.instances_per_class == 2
    recall = np.array([1, 2, 3]) / 3
    expected = {"a": 2 / (2 + 1), "b": (2 * recall / (2 * recall + 3)).max()}
    assert result.average == pytest.approx((expected["a"] + expected["b"]) / 2)


def test_a_perfect_detector_has_no_errors_and_no_sensitivity(shared: Path) -> None:
    annotations, _ = golden(shared)
    detections = found(
        *[
            (video.name, *segment, label, 1.0)
            for video in annotations.videos
            for segment, label in dict.fromkeys(zip(map(tuple, video.segments.tolist()), video.labels, strict=True))
            if segment[0] < segment[1]
        ]
    )
    result = diagnose(annotations, detections, TIOUS)
    assert result.average == pytest.approx(1, abs=1e-12)
    assert result.false_positives.counts[:, 0, 0].tolist() == [result.ground_truth] * len(TIOUS)
    assert result.false_positives.counts.sum() == result.ground_truth * len(TIOUS)
    assert result.false_positives.impact == pytest.approx(np.zeros(5), abs=1e-12)
    assert result.missed == 0
    for each in result.characteristics:
        assert (each.sensitivity, each.impact) == pytest.approx((0, 0), abs=1e-12)
        assert each.missed.tolist() == [0] * len(each.counts)


def test_characteristics_are_measured_as_in_detads_files() -> None:
    # video_test_0000004 of THUMOS-14: DETAD's own file gives 7 instances, length 0.9 and coverage 0.0266 to the first.
    rows = [(0.2, 1.1), (11.4, 12.2), (18.6, 20.8), (28.3, 29.7), (1.0, 1.5), (20.8, 22.3), (30.3, 31.7)]
    labels = ["CricketBowling"] * 4 + ["CricketShot"] * 3
    annotations = truth(
        *[("v", *segment, label) for segment, label in zip(rows, labels, strict=True)], durations={"v": 33.83}
    )
    bins = {"coverage": Bins((0, 0.02660, 0.02661, 1)), "length": Bins((0, 0.8, 0.95, 9)), "instances": Bins((6, 7))}
    result = diagnose(annotations, found(), [0.5], bins)
    counts = {each.name: each.counts.tolist() for each in result.characteristics}
    assert counts == {"coverage": [2, 1, 4], "length": [2, 1, 4], "instances": [7]}


def test_bins_are_closed_above_and_the_first_below_too() -> None:
    assert Bins((0, 1, 2)).assign(np.array([0.0, 1.0, 1.5, 2.0]), "length").tolist() == [0, 0, 1, 1]
    assert quantile_bins(np.array([3.0] * 9 + [5.0])).edges == (0, 3, 5)
    assert quantile_bins(np.arange(1.0, 11)).edges == (0, 2, 4, 6, 8, 10)
    assert quantile_bins(np.array([4.0])).names == ("XS",)


def test_an_instance_longer_than_its_video_has_coverage_one() -> None:
    result = diagnose(truth(("v", 0, 150, "a")), found(), [0.5], ACTIVITYNET)
    assert result.characteristics[0].counts.tolist() == [0, 0, 0, 0, 1]
    assert json.dumps(result.as_json(), allow_nan=False)
    assert result.as_json()["characteristics"]["coverage"]["bins"][0]["average_mAP_N"] is None


def test_an_instance_found_only_deep_in_the_list_is_missed() -> None:
    noise = [("w", 0.0, 5.0, "a", 0.9)]
    hit = ("v", 10, 20, "a", 0.1)
    for count, missed in ((18, 0), (19, 1)):  # normalised precision 1/19 and 1/20
        assert diagnose(truth(("v", 10, 20, "a")), found(*noise * count, hit), [0.5]).missed == missed


# The oracles: one class, one threshold, one detection at a time, over lists.


def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    inter = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return inter / ((one[1] - one[0]) + (other[1] - other[0]) - inter)


class Oracle:
    """DETAD on lists: `rows` of the ground truth, `ranked` detections and the row that each has found, or None."""

    def __init__(self, rows: list[Truth], detections: list[Found], tiou: float) -> None:
        self.rows, self.tiou = rows, tiou
        self.labels = sorted({row[3] for row in rows})
        self.mean = len(rows) / len(self.labels)
        kept = [each for each in detections if each[3] in self.labels]
        self.ranked = sorted(kept, key=lambda each: (each[3], -each[4], each[0]))  # stable: then the file's order
        free = set(range(len(rows)))
        self.taken: list[int | None] = []
        for video, start, end, label, _ in self.ranked:
            options = [
                (-overlap((start, end), rows[row][1:3]), row)
                for row in free
                if rows[row][0] == video and rows[row][3] == label and overlap((start, end), rows[row][1:3]) >= tiou
            ]
            self.taken.append(min(options)[1] if options else None)
            free -= {self.taken[-1]}

    def kind(self, index: int) -> int:
        if self.taken[index] is not None:
            return 0
        video, start, end, label, _ = self.ranked[index]
        options = [(overlap((start, end), row[1:3]), row[3] == label) for row in self.rows if row[0] == video]
        largest, own = max(options, default=(0.0, False))
        if largest >= self.tiou:
            return 1 if own else 2
        if largest >= 0.1:
            return 3 if own else 4
        return 5

    def precision(self, label: str, kept: set[int], rows: set[int]) -> list[tuple[int, float, float]]:
        """Index, recall and normalised precision at each kept detection of a class."""
        positives = sum(self.rows[row][3] == label for row in rows)
        true = false = 0
        result = []
        for index, each in enumerate(self.ranked):
            if each[3] == label and index in kept:
                hit = self.taken[index] in rows
                true, false = true + hit, false + (not hit)
                recall = true / positives
                result.append((index, recall, recall * self.mean / (recall * self.mean + false)))
        return result

    def mean_ap_n(self, kept: set[int], rows: set[int]) -> float:
        """Mean over the classes that occur in `rows` of the area under the interpolated curve."""
        values = []
        for label in sorted({self.rows[row][3] for row in rows}):
            curve, area, before = self.precision(label, kept, rows), 0.0, 0.0
            for place, (_, recall, _) in enumerate(curve):
                area += (recall - before) * max(precision for _, _, precision in curve[place:])
                before = recall
            values.append(area)
        return sum(values) / len(values)


def check_against_oracles(rows: list[Truth], detections: list[Found], result: Diagnosis) -> None:
    oracles = [Oracle(rows, detections, tiou) for tiou in TIOUS]
    first, everything = oracles[0], set(range(len(rows)))
    limit: dict[int, int] = {}
    for index, each in enumerate(first.ranked):
        rank = sum(other[3] == each[3] for other in first.ranked[:index])
        group = rank // sum(row[3] == each[3] for row in rows)
        if group < 10:
            limit[index] = group
    for place, oracle in enumerate(oracles):
        counts = np.zeros((10, len(KINDS)), dtype=int)
        for index, group in limit.items():
            counts[group, oracle.kind(index)] += 1
        assert result.false_positives.counts[place].tolist() == counts.tolist()
        total = set(range(len(first.ranked)))
        assert result.mean_ap_n[place] == pytest.approx(oracle.mean_ap_n(total, everything), abs=1e-12)

    average = np.mean([oracle.mean_ap_n(set(limit), everything) for oracle in oracles])
    assert result.false_positives.average == pytest.approx(average, abs=1e-12)
    for kind in range(1, len(KINDS)):
        kept = [{index for index in limit if oracle.kind(index) != kind} for oracle in oracles]
        gain = np.mean([oracle.mean_ap_n(own, everything) for oracle, own in zip(oracles, kept, strict=True)])
        assert result.false_positives.impact[kind - 1] == pytest.approx(gain - average, abs=1e-12)

    length = next(each for each in result.characteristics if each.name == "length")
    for index in range(len(length.counts)):
        low, high = length.bins.edges[index : index + 2]
        inside = {row for row, (_, start, end, _) in enumerate(rows) if low < end - start <= high}
        assert length.counts[index] == len(inside)
        if inside:
            elsewhere = {
                place
                for oracle in oracles
                for place, row in enumerate(oracle.taken)
                if row is not None and row not in inside
            }
            kept_here = set(range(len(first.ranked))) - elsewhere
            value = np.mean([oracle.mean_ap_n(kept_here, inside) for oracle in oracles])
            assert length.scores[index] == pytest.approx(value, abs=1e-12)
            lost = [
                len(
                    inside
                    - {
                        oracle.taken[place]
                        for label in oracle.labels
                        for place, _, precision in oracle.precision(label, set(range(len(oracle.ranked))), everything)
                        if precision > 0.05
                    }
                )
                for oracle in oracles
            ]
            assert length.missed[index] == pytest.approx(np.mean(lost) / len(inside), abs=1e-12)


SPANS = st.tuples(st.integers(0, 12), st.integers(1, 8)).map(lambda pair: (float(pair[0]), float(sum(pair))))
VIDEOS, LABELS = st.sampled_from("uvw"), st.sampled_from("abc")


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(VIDEOS, SPANS, LABELS), min_size=1, max_size=8, unique=True),
    detections=st.lists(st.tuples(VIDEOS, SPANS, LABELS, st.integers(0, 9)), max_size=40),
)
def test_any_diagnosis_equals_the_plain_one(
    rows: list[tuple[str, tuple[float, float], str]], detections: list[tuple[str, tuple[float, float], str, int]]
) -> None:
    rows.sort(key=lambda row: row[0])  # videos together, as in a file
    detections.sort(key=lambda row: row[0])
    plain_rows = [(video, *span, label) for video, span, label in rows]
    plain_found = [(video, *span, label, float(score)) for video, span, label, score in detections]
    bins = {"length": Bins((0, 2, 4, math.inf))}
    result = diagnose(truth(*plain_rows), found(*plain_found), TIOUS, bins)
    check_against_oracles(plain_rows, plain_found, result)


def test_a_thumos_sized_diagnosis_is_quick_and_its_sums_come_out(shared: Path) -> None:
    annotations, detections = golden(shared)
    start = time.process_time()
    result = diagnose(annotations, detections, [0.3, 0.4, 0.5, 0.6, 0.7], THUMOS14)
    assert time.process_time() - start < 5
    expected = mean_average_precision(annotations, detections, result.tious.tolist(), "activitynet")
    assert result.mean_ap.tolist() == expected.mean.tolist()

    sizes = result.false_positives.sizes
    assert (result.false_positives.counts.sum(axis=2) == sizes).all()
    assert sizes[:4].tolist() == [result.ground_truth] * 4
    assert (np.diff(sizes) <= 0).all()
    assert result.false_positives.shares.sum(axis=1) == pytest.approx(np.ones(10))
    assert (result.false_positives.impact >= 0).all()
    for each in result.characteristics:
        assert each.counts.sum() == result.ground_truth
        assert (each.counts * each.missed).sum() == pytest.approx(result.missed * result.ground_truth)
        assert each.sensitivity == each.scores.max() - each.scores.min()
        assert each.impact == each.scores.max() - result.average


def test_one_bin_of_everything_has_the_overall_numbers(shared: Path) -> None:
    everything = {name: Bins((0, math.inf)) for name in ("coverage", "length", "instances")}
    result = diagnose(*golden(shared), [0.5, 0.75], everything)
    for each in result.characteristics:
        assert each.scores[0] == pytest.approx(result.average, abs=1e-12)
        assert each.missed[0] == pytest.approx(result.missed, abs=1e-12)


def test_no_detections_are_no_errors_and_everything_is_missed() -> None:
    result = diagnose(ONE, found(), TIOUS)
    assert (result.average, result.missed) == (0, 1)
    assert result.false_positives.counts.sum() == 0
    assert json.dumps(result.as_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tious": [0.5, 1.5]}, r"tIoU thresholds must be in \(0, 1\]"),
        ({"tious": []}, "tIoU thresholds"),
        ({"bins": {"colour": Bins((0, 1))}}, "unknown characteristic 'colour'; there are coverage, length, instances"),
        ({"bins": {"length": Bins((0, 15))}}, "bins of length go from 0 to 15, but 1 instances are outside"),
        ({"ground_truth": truth(also=["v"])}, "no ground truth"),
    ],
)
def test_impossible_questions_are_refused(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"ground_truth": ONE, "detections": found(), "tious": [0.5]} | change
    with pytest.raises(RdfaError, match=message):
        diagnose(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("edges", [(0, 0), (1, 0), (0, math.nan), (0,), (0, 1, 2, 3, 4, 5, 6)])
def test_impossible_bins_are_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(RdfaError, match="bins"):
        Bins(edges)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    write_annotations(tmp_path / "gt.json", ONE)
    for name in "xy":
        detections = found(("v", 10, 19, "a", 0.9), ("v", 10, 20, "b", 0.8), ("elsewhere", 1, 2, "a", 0.1))
        write_detections(tmp_path / f"{name}.json", detections)
    return [
        "diagnose",
        f"--ground-truth={tmp_path / 'gt.json'}",
        f"--out={tmp_path / 'out'}",
        "--tiou=0.5",
        "--detections",
        str(tmp_path / "x.json"),
        str(tmp_path / "y.json"),
    ]


def test_the_command_writes_json_and_figures_of_each_run_and_of_all(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*files, "--name=first", "--name=second", "--bins=thumos14", "--bins=length=0,15,inf"]) == 0
    names = {f"{name}.{ending}" for name in ("false_positives", "sensitivity", "false_negatives") for ending in FORMATS}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"first", "second"}
    assert {path.name for path in (tmp_path / "out/first").iterdir()} == names | {"diagnosis.json"}
    written = json.loads((tmp_path / "out/second/diagnosis.json").read_text())
    assert (written["run"], written["ground_truth"]) == ("second", 2)
    assert [each["up_to"] for each in written["characteristics"]["length"]["bins"]] == [15, None]
    output = capsys.readouterr().out
    assert "gain without wrong label" in output
    assert "note: first: 1 detections in videos that the ground truth lacks" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name=only"], "2 files of detections need as many --name, not 1"),
        (["--name=same", "--name=same"], "two runs are called 'same'"),
        (["--name=a", "--name=../b"], "cannot be a folder's"),
        (["--bins=length"], "--bins 'length': must be"),
        (["--bins=length=0,x"], "--bins 'length=0,x': must be"),
        (["--bins=colour=0,1"], "unknown characteristic 'colour'"),
        (["--subset=validation"], "no video in subset 'validation'"),
        (["--tiou=much"], "--tiou 'much'"),
    ],
)
def test_the_command_tells_what_is_wrong_and_writes_nothing(
    arguments: list[str], message: str, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*files, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_of_the_format_is_told(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "y.json").write_text('{"results": {"v": [{"label": "a", "score": NaN, "segment": [0, 1]}]}}')
    assert main(files) == 2
    assert "score nan is not finite" in capsys.readouterr().err
