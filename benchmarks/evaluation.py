"""Evaluation and NMS against the algorithms of the peers, measured side by side in one run. Prints Markdown.

The baselines are plain re-implementations: the evaluator as ActionFormer, OpenTAD and the ActivityNet toolkit write
it (pandas; class by class, detection by detection), NMS as a numpy loop over the classes. Each case runs in a
process of its own, so that its peak memory is its own; times are CPU seconds after the imports, loading included.
The whole takes about two minutes, nearly all of them in the ActivityNet-sized baseline.
"""

import gzip
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdfa.data.annotations import read_annotations
from rdfa.data.detections import read_detections
from rdfa.evaluation.average_precision import mean_average_precision
from rdfa.ops.nms import nms

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
SETS: dict[str, Any] = {
    "thumos": ("../data/thumos14/thumos14.json", "eval_thumos_pred.json", "Test", np.linspace(0.3, 0.7, 5)),
    "anetlike": ("eval_anetlike_gt.json", "eval_anetlike_pred.json.gz", "validation", np.linspace(0.5, 0.95, 10)),
}
CANDIDATES, CLASSES, MOST, REPEATS = 20_000, 20, 200, 5
NMS: dict[str, dict[str, Any]] = {
    f"soft-NMS, {CANDIDATES:,} in {CLASSES} classes": {"method": "gaussian"},
    f"soft-NMS, {CANDIDATES:,}, across classes": {"method": "gaussian", "multiclass": False},
    f"hard NMS, {CANDIDATES:,} in {CLASSES} classes": {"method": "hard"},
}
WHO = ("baseline", "rdfa")


def main() -> None:
    if len(sys.argv) == 4:
        print(json.dumps(run_case(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
        return
    print("| case | baseline | rdfa | ratio | results |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (_, detections, *_) in SETS.items():
            if not (GOLDEN / detections).exists():
                print(f"| mAP, {name} | | | | {GOLDEN / detections} is absent |", flush=True)
                continue
            file = unpacked(GOLDEN / detections, Path(folder))
            print(row(f"mAP, {name}", *(in_own_process(who, name, file) for who in WHO)), flush=True)
    for name in NMS:
        print(row(name, *(in_own_process(who, name, Path()) for who in WHO)), flush=True)


def row(name: str, baseline: dict[str, Any], ours: dict[str, Any]) -> str:
    same = "equal" if np.allclose(baseline["result"], ours["result"], rtol=1e-6, atol=1e-9) else "DIFFERENT"
    costs = [f"{1000 * each['seconds']:,.1f} ms, {each['megabytes']:.0f} MB" for each in (baseline, ours)]
    return f"| {name} | {costs[0]} | {costs[1]} | {baseline['seconds'] / ours['seconds']:.0f} x | {same} |"


def unpacked(file: Path, folder: Path) -> Path:
    """The detections as everybody has them: not compressed."""
    if file.suffix != ".gz":
        return file
    with gzip.open(file) as packed, (folder / file.stem).open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    return folder / file.stem


def in_own_process(who: str, name: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, who, name, str(path)]
    return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))


def run_case(who: str, name: str, path: Path) -> dict[str, Any]:
    """Time one case; `path` is the detection file of a mAP case."""
    ours = who == "rdfa"
    if name in SETS:
        truth, _, subset, tious = SETS[name]
        evaluate = our_map if ours else baseline_map
        seconds, result = timed(lambda: evaluate(GOLDEN / truth, path, subset, tious), repeats=1)
    else:
        suppress = (lambda *rows, **how: nms(*rows, max_segments=MOST, **how)[1].tolist()) if ours else baseline_nms
        rows = candidates()
        seconds, result = timed(lambda: suppress(*rows, **NMS[name]), repeats=REPEATS)
    return {"seconds": seconds, "megabytes": peak_megabytes(), "result": list(result)}


def timed(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """CPU seconds of the quickest of `repeats` calls, and the result."""
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        best = min(best, time.process_time() - start)
    return best, result


def peak_megabytes() -> float:
    """Of this process; Linux's `ru_maxrss` would start from the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def our_map(truth: Path, found: Path, subset: str, tious: NDArray[Any]) -> Any:
    annotations = read_annotations(truth, faulty="keep").subset(subset)
    return mean_average_precision(annotations, read_detections(found), tious.tolist(), "activitynet").mean


def baseline_map(truth: Path, found: Path, subset: str, tious: NDArray[Any]) -> Any:
    """As the peers do it: a data frame of detections per class, walked row by row."""
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

    database = json.loads(truth.read_text())["database"]
    truths = pd.DataFrame(
        [
            (video, *item["segment"], item["label"])
            for video, content in database.items()
            if content["subset"] == subset
            for item in content["annotations"]
        ],
        columns=["video", "start", "end", "label"],
    )
    results = json.loads(found.read_text())["results"]
    rows = [(video, *item["segment"], item["label"], item["score"]) for video, own in results.items() for item in own]
    detections = pd.DataFrame(rows, columns=["video", "start", "end", "label", "score"])
    labels = sorted(truths["label"].unique())
    per_class = [
        baseline_ap(
            truths[truths["label"] == label].reset_index(drop=True),
            detections[detections["label"] == label].sort_values("score", ascending=False).reset_index(drop=True),
            tious,
        )
        for label in labels
    ]
    return np.mean(per_class, axis=0)


def baseline_ap(truths: Any, detections: Any, tious: NDArray[Any]) -> NDArray[Any]:
    by_video = truths.groupby("video")
    taken = np.zeros((len(tious), len(truths)), dtype=bool)
    true = np.zeros((len(tious), len(detections)))
    for index, detection in detections.iterrows():
        if detection["video"] not in by_video.groups:
            continue
        own = by_video.get_group(detection["video"]).reset_index()
        start, end = own["start"].to_numpy(), own["end"].to_numpy()
        inter = np.maximum(np.minimum(end, detection["end"]) - np.maximum(start, detection["start"]), 0)
        overlap = inter / (end - start + detection["end"] - detection["start"] - inter)
        for place, tiou in enumerate(tious):
            for best in overlap.argsort()[::-1]:
                if overlap[best] < tiou:
                    break
                if not taken[place, own.loc[best]["index"]]:
                    taken[place, own.loc[best]["index"]] = True
                    true[place, index] = 1
                    break
    hits = true.cumsum(axis=1)
    precision = np.maximum.accumulate((hits / np.arange(1, len(detections) + 1))[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((precision * true).sum(axis=1) / len(truths))


def candidates() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """What a detector gives for one video before NMS: many candidates, few with a high score."""
    random = np.random.default_rng(0)
    start = random.uniform(0, 2000, CANDIDATES)
    segments = np.stack([start, start + random.uniform(1, 60, CANDIDATES)], axis=1).astype(np.float32)
    scores = random.uniform(0, 1, CANDIDATES).astype(np.float32) ** 4
    return segments, scores, random.integers(0, CLASSES, CANDIDATES)


def baseline_nms(
    segments: NDArray[Any], scores: NDArray[Any], labels: NDArray[Any], method: str, multiclass: bool = True
) -> list[float]:
    """Class by class, up to `MOST` of each: take the best, lower the others, drop those below 0.001."""
    taken: list[float] = []
    for label in np.unique(labels) if multiclass else [None]:
        own = labels == label if multiclass else np.ones(len(labels), dtype=bool)
        left, score = segments[own], scores[own].copy()
        for _ in range(MOST):
            if len(score) == 0:
                break
            best = int(score.argmax())
            taken.append(float(score[best]))
            one, score, left = left[best], np.delete(score, best), np.delete(left, best, axis=0)
            inter = np.maximum(np.minimum(left[:, 1], one[1]) - np.maximum(left[:, 0], one[0]), 0)
            overlap = inter / ((one[1] - one[0] + 1e-6) + (left[:, 1] - left[:, 0] + 1e-6) - inter)
            score *= np.exp(-(overlap**2) / 0.5) if method == "gaussian" else overlap < 0.1
            score, left = score[score >= 0.001], left[score >= 0.001]
    return sorted(taken, reverse=True)[:MOST]


if __name__ == "__main__":
    main()
