"""Extremes of annotations and detections: very many, none, equal, impossible; against plain oracles."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rdfa.data.annotations import read_annotations
from rdfa.data.detections import read_detections, write_detections
from rdfa.errors import RdfaError
from rdfa.evaluation.average_precision import mean_average_precision
from rdfa.evaluation.of_files import evaluate_files
from rdfa.ops.nms import nms
from tests.faults import extremes_oracles as oracle
from tests.faults.campaign import SURVIVED, WRONG, Kind, Outcome, Scene

CLOSE = 1e-9


def verdict(right: bool, what: str) -> Outcome:
    return Outcome(SURVIVED if right else WRONG, what)


def refused(call: Callable[[], object], *words: str) -> Outcome:
    """Whether a call ends in an error that says all these words."""
    try:
        call()
    except RdfaError as error:
        return verdict(all(word in str(error) for word in words), f"{words} is not in: {error}")
    return Outcome(WRONG, f"not refused, though {words}")


def many_instances(scene: Scene) -> Iterator[Outcome]:
    """10^5 instances in one video, each found or not; which precision that is, is counted by hand.

    The instances lie apart, so that a detection has one to find; or they lie so dense that hundreds overlap, some of
    them twice there.
    """
    rng = np.random.default_rng(scene.random.getrandbits(32))
    for classes in (1, 20):
        count = scene.count(20_000, 100_000)
        starts = np.arange(count) * 0.1
        found = rng.random(count) < 0.7
        shifted = np.where(found, 0.0, 0.05)  # tIoU 0 with the own one, which ends before, and with the next
        scores, labels = rng.permutation(count) / count, np.arange(count) % classes
        names = [f"c{number:02d}" for number in range(classes)]
        rows = zip(starts.tolist(), labels.tolist(), strict=True)
        truth = oracle.annotations([("v", start, start + 0.04, names[label]) for start, label in rows])
        cells = zip((starts + shifted).tolist(), labels.tolist(), scores.tolist(), strict=True)
        given = oracle.detections([("v", at, at + 0.04, names[label], score) for at, label, score in cells], names)
        expected = np.mean([_counted(found[labels == label], scores[labels == label]) for label in range(classes)])
        result = mean_average_precision(truth, given, [0.5], "activitynet").average
        yield verdict(abs(result - expected) < CLOSE, f"{count} instances, {classes} classes: {result}, not {expected}")
    count = scene.count(2_000, 100_000)
    segments = np.sort(rng.uniform(0, 50, count))[:, None] + [0.0, 0.2]
    segments[count // 2 :] = segments[: count - count // 2]  # repeated
    truth = oracle.annotations([("v", start, end, "a") for start, end in segments.tolist()])
    kept = oracle.distinct([(start, end) for start, end in segments.tolist()])
    # Each of these detections finds the instance that it equals: precision is 1 as far as recall goes.
    own = [("v", start, end, "a", 1.0) for start, end in kept[:3000]]
    result = mean_average_precision(truth, oracle.detections(own, ["a"]), [0.5], "activitynet")
    right = result.ground_truth == len(kept) and abs(result.average - len(own) / len(kept)) < CLOSE
    yield verdict(right, f"{count} dense instances: {result.average}, {result.ground_truth} kept, not {len(kept)}")


def _counted(found: Any, scores: Any) -> float:
    hits = found[np.argsort(-scores)]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / len(hits))


def many_classes(scene: Scene) -> Iterator[Outcome]:
    """10^4 classes; of each class a part of its instances is found by detections of score 1."""
    rng = np.random.default_rng(scene.random.getrandbits(32))
    classes = scene.count(2_000, 10_000)
    names = [f"class {number:05d}" for number in range(classes)]
    instances: list[oracle.Instance] = []
    found: list[oracle.Detection] = []
    recalls = []
    for name in names:
        own = [(f"v{int(rng.integers(50)):02d}", 10.0 * i, 10.0 * i + 5, name) for i in range(int(rng.integers(1, 6)))]
        hits = int(rng.integers(0, len(own) + 1))
        instances += own
        found += [(*each, 1.0) for each in own[:hits]]
        recalls.append(hits / len(own))
    truth, given = oracle.annotations(instances), oracle.detections(found, names)
    result = mean_average_precision(truth, given, [0.5, 0.9], "activitynet")
    right = len(result.classes) == classes and abs(result.average - np.mean(recalls)) < CLOSE
    yield verdict(right, f"{classes} classes: {result.average}, not {np.mean(recalls)}")


def equal_scores(scene: Scene) -> Iterator[Outcome]:
    """All scores equal, also negative or zero: mAP and NMS are those of the rule for ties, and the same each time."""
    for number in range(scene.count(8, 60)):
        rng = np.random.default_rng(scene.random.getrandbits(32))
        score = (0.5, 0.0, -3.0, 1.0)[number % 4]
        videos, classes = [f"v{i}" for i in range(4)], ["a", "b"]
        instances = [_drawn(rng, videos, classes) for _ in range(20)]
        found: list[oracle.Detection] = [(*_drawn(rng, videos, classes), score) for _ in range(60)]
        found = [row for name in videos[::-1] for row in found if row[0] == name]
        truth, given = oracle.annotations(instances, also=videos), oracle.detections(found, classes)
        results = {mean_average_precision(truth, given, [0.4], "activitynet").average for _ in range(2)}
        expected = oracle.mean_ap(instances, found, 0.4)
        yield verdict(
            len(results) == 1 and abs(results.pop() - expected) < CLOSE, f"mAP of 60 detections of score {score}"
        )
    for number in range(scene.count(9, 90)):
        rng = np.random.default_rng(scene.random.getrandbits(32))
        method = ("hard", "linear", "gaussian")[number % 3]
        starts = rng.integers(0, 20, 40).astype(np.float64)
        segments = np.stack([starts, starts + rng.integers(1, 9, 40)], axis=1)
        scores, labels = np.full(40, 0.5), rng.integers(0, 3, 40)
        settings: Any = {"method": method, "min_score": 0.0, "max_segments": None, "tiou_threshold": 0.3}
        kept, confidence, named = nms(segments, scores, labels, sigma=0.5, **settings)
        plain = oracle.suppressed(segments, scores, labels, method, 0.3, 0.5)
        rows = [row for row, _ in plain]
        right = np.array_equal(kept, segments[rows]) and np.array_equal(named, labels[rows])
        right = right and np.allclose(confidence, [value for _, value in plain], rtol=1e-12, atol=0)
        yield verdict(right, f"{method} NMS of 40 equal scores: {len(kept)} segments, not {len(rows)}")


def _drawn(rng: np.random.Generator, videos: list[str], classes: list[str]) -> oracle.Instance:
    start = float(rng.integers(0, 30))
    return str(rng.choice(videos)), start, start + float(rng.integers(1, 8)), str(rng.choice(classes))


IMPOSSIBLE: tuple[tuple[str, Any, str], ...] = (
    ("no length", [3.0, 3.0], "starts at or after its end"),
    ("a negative length", [5.0, 3.0], "starts at or after its end"),
    ("beyond the end", [3.0, 30.0], "leaves the video, which lasts 10 s"),
    ("all beyond the end", [20.0, 30.0], "leaves the video, which lasts 10 s"),
    ("before the start", [-4.0, 3.0], "leaves the video, which lasts 10 s"),
    ("NaN", [float("nan"), 3.0], "not finite"),
    ("infinite", [0.0, float("inf")], "not finite"),
    ("a number of 400 digits", [0, 10**400], "file.json"),
    ("no numbers", ["0", "1"], "is not of the form"),
    ("one bound", [1.0], "is not of the form"),
)


def impossible_instances(scene: Scene) -> Iterator[Outcome]:
    """Instances that cannot be: refused with video and place, mended by cutting, kept as they are."""
    path = scene.folder / "file.json"
    for name, segment, words in IMPOSSIBLE:
        video = f"v{scene.random.randrange(5)}"
        _write(path, video, segment)
        yield refused(lambda: read_annotations(path), "file.json", *([video, words] if "digits" not in name else []))
        if words.startswith(("starts", "leaves")):
            yield _mended(path, video, segment)
    _write(path, "v1", [1.0, 2.0], label="unknown")
    yield refused(lambda: read_annotations(path), "file.json", "unknown class 'unknown'")
    for text in (
        '{"database": {"v": {"subset": "s", "duration": ' + "9" * 5000 + ', "annotations": []}}}',
        "[" * 10**5,
    ):
        path.write_text(text)
        yield refused(lambda: read_annotations(path), "file.json")
    path.write_text('{"database": {"v": {"subset": "s", "duration": 1' + "0" * 400 + ', "annotations": []}}}')
    yield refused(lambda: read_annotations(path), "file.json", "'v'", "duration")


def _write(path: Path, faulty: str, segment: Any, label: str = "a") -> None:
    whole = {"segment": [1.0, 2.0], "label": "a"}
    database = {
        name: {"subset": "s", "duration": 10.0, "annotations": [whole, *([{"segment": segment, "label": label}] * 2)]}
        if name == faulty
        else {"subset": "s", "duration": 10.0, "annotations": [whole]}
        for name in (f"v{i}" for i in range(5))
    }
    path.write_text(json.dumps({"database": database, "classes": ["a"]}))


def _mended(path: Path, video: str, segment: list[float]) -> Outcome:
    cut = [min(max(bound, 0.0), 10.0) for bound in segment]
    expected = [[1.0, 2.0], *([cut, cut] if cut[0] < cut[1] else [])]
    mended = read_annotations(path, faulty="mend").by_name[video].segments.tolist()
    kept = read_annotations(path, faulty="keep")
    # Evaluated as they are: the empty and the repeated one do not count, in rdfa and in the oracle.
    rows = [(each.name, *bounds, "a") for each in kept.videos for bounds in each.segments.tolist()]
    found = [(*row, 0.5) for row in rows if row[1] < row[2]]
    result = mean_average_precision(kept, oracle.detections(found, ["a"]), [0.5], "activitynet").average
    right = mended == expected and abs(result - oracle.mean_ap(rows, found, 0.5)) < CLOSE
    return verdict(right, f"{segment}: mended to {mended}, not {expected}; mAP {result}")


def nothing_there(scene: Scene) -> Iterator[Outcome]:
    """Splits and videos without anything, and detections of nothing."""
    truth, found = scene.folder / "truth.json", scene.folder / "found.json"
    whole = {"subset": "test", "duration": 10.0, "annotations": [{"segment": [1, 2], "label": "a"}]}
    empty = {"subset": "test", "duration": 10.0, "annotations": []}
    evaluate = lambda: evaluate_files(truth, found, subset="test", protocol="activitynet", tious=[0.5])  # noqa: E731
    found.write_text('{"results": {"v": [{"label": "a", "score": 1, "segment": [1, 2]}], "w": []}}')
    truth.write_text(json.dumps({"database": {"v": whole, "w": empty}}))
    yield verdict(evaluate().average == 1.0, "a video without instances changes the result")
    found.write_text('{"results": {"v": [{"label": "a", "score": 1, "segment": [1, 2]}], "w": [{"label": "a", '
                     '"score": 2, "segment": [1, 2]}]}}')  # fmt: skip
    yield verdict(evaluate().average == 0.5, "a detection in a video without instances is not a false positive")
    found.write_text('{"results": {}}')
    yield verdict(evaluate().average == 0.0, "no detection at all")
    truth.write_text(json.dumps({"database": {"v": empty, "w": empty}}))
    yield refused(evaluate, "no ground truth")
    truth.write_text(json.dumps({"database": {"v": {**whole, "subset": "train"}}}))
    yield refused(evaluate, "no video in subset 'test'", "'train'")
    truth.write_text('{"database": {}}')
    yield refused(evaluate, "no video in subset 'test'")


def odd_scores(scene: Scene) -> Iterator[Outcome]:
    """Scores that are no numbers are refused where they stand; negative and huge ones are scores."""
    path = scene.folder / "found.json"
    for score in ("NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, '"0.5"', "null", "[]"):
        rows = [f'{{"label": "a", "score": {each}, "segment": [1, 2]}}' for each in ("0.5", score)]
        path.write_text(f'{{"results": {{"u": [], "v": [{", ".join(rows)}]}}}}')
        yield refused(lambda: read_detections(path), "found.json", "'v'", "detection 1")
    for _ in range(scene.count(5, 40)):
        rng = np.random.default_rng(scene.random.getrandbits(32))
        videos, classes = ["v0", "v1"], ["a", "b"]
        instances = [_drawn(rng, videos, classes) for _ in range(10)]
        scores = rng.choice([-1e300, -2.0, -0.0, 0.0, 5e-324, 3.0, 1e300], 30).tolist()
        found: list[oracle.Detection] = [(*_drawn(rng, videos, classes), score) for score in scores]
        found.sort(key=lambda row: row[0])
        write_detections(path, oracle.detections(found, classes))
        result = mean_average_precision(oracle.annotations(instances), read_detections(path), [0.4], "activitynet")
        yield verdict(abs(result.average - oracle.mean_ap(instances, found, 0.4)) < CLOSE, f"scores {scores}")


KINDS = (
    Kind("10^5 instances in one video, evaluated", many_instances),
    Kind("10^4 classes, evaluated", many_classes),
    Kind("all scores equal", equal_scores),
    Kind("impossible instances", impossible_instances),
    Kind("empty splits and videos", nothing_there),
    Kind("odd scores", odd_scores),
)
