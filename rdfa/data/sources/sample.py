"""The sample source: plants actions into features, with the annotations' shape of a real data set.

In order of reading: `write_sample`, which writes the files; `plant`, the features of one video; `_scores`, an external
video-level classifier. `sample_annotations` draws the annotations, `sample_appearance` what classes and cues look like,
`sample_events` what happens in a video and when.

An action has two phases, an onset and a completion, each with its own direction in feature space. What makes the
task need temporal context: some sister classes have the same two phases in the other order, and the background holds
onsets that no completion follows; where asked for, decoys that nothing but a cue far away tells from actions, and
sister classes that nothing but the period of a texture tells apart. What makes it need learning: white noise, a
drifting background that differs by video, gains, sister classes that look alike.

Everything follows from `sample.seed`; each video has a random stream of its own. Features are sums and products of
single numbers, no matrix products or long sums, so that they do not depend on threads or on the width of the
processor's vectors; they end in float16.
"""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray

from rdfa.data.annotations import Annotations, Video, write_annotations
from rdfa.data.features import FeatureWriter
from rdfa.data.sources.sample_annotations import Plan, class_weights, draw_plans
from rdfa.data.sources.sample_appearance import Appearance, Single
from rdfa.data.sources.sample_events import draw_events
from rdfa.errors import RdfaError
from rdfa.files import write_json
from rdfa.schema import Features, Run, Sample, Statistics

DRIFT_SECONDS, DRIFT_MEMORY = 5.0, 0.9
"""The background's AR(1) process: time between its steps (linear in between) and its coefficient."""
SCORED = 5
"""Classes that the external classifier names for a video."""


def write_sample(run: Run, folder: Path) -> None:
    """Write `annotations.json`, `features.h5` and, for external classes, `external_scores.json` into `folder`.

    The same parameters give the same bytes.

    Raises:
        RdfaError: parameters that do not go together, or a full disk.
    """
    statistics, sample = run.source.statistics, run.source.sample
    if statistics is None or sample is None:
        raise RdfaError(f"{run.dataset}: source.kind 'sample' needs source.statistics and source.sample")
    if run.features.fps is None:
        raise RdfaError(f"{run.dataset}: planted features need a frame rate: set features.fps")
    if run.train_subset == run.test_subset:
        raise RdfaError(f"{run.dataset}: train_subset and test_subset are both {run.train_subset!r}")
    splits = _draw_splits(run, statistics, sample, run.features.fps)
    classes = tuple(f"class_{label:03d}" for label in range(run.num_classes))
    folder.mkdir(parents=True, exist_ok=True)
    write_annotations(folder / "annotations.json", _as_annotations(splits, classes, run.features.fps))
    _write_features(run, splits, sample, run.features.fps, folder / "features.h5")
    if run.detection.external_classes:
        write_json(folder / "external_scores.json", _scores(splits, sample, classes))


def _draw_splits(run: Run, statistics: Statistics, sample: Sample, fps: float) -> dict[str, list[Plan]]:
    """The videos of both splits. A class of a test video occurs in some training video, or nobody could learn it."""
    rng = _stream(sample, "annotations")
    weights = class_weights(rng, statistics, run.num_classes)
    shortest = (2 * run.features.window + run.features.stride) / fps
    splits: dict[str, list[Plan]] = {}
    for subset, count in ((run.train_subset, sample.train_videos), (run.test_subset, sample.test_videos)):
        names = [f"{subset.lower()}_{index:04d}" for index in range(count)]
        splits[subset] = draw_plans(rng, statistics, sample, names, weights, math.ceil(shortest * 100) / 100)
        seen = {label for plan in splits[subset] for label in plan.labels}
        weights = np.where(np.isin(np.arange(run.num_classes), list(seen)), weights, 0.0)
    return splits


def _as_annotations(splits: dict[str, list[Plan]], classes: tuple[str, ...], fps: float) -> Annotations:
    videos = []
    for subset, plans in splits.items():
        for plan in plans:
            segments = np.array([(instance.start, instance.end) for instance in plan.instances])
            labels = tuple(classes[instance.label] for instance in plan.instances)
            videos.append(Video(plan.name, subset, plan.duration, fps, segments, labels))
    return Annotations(tuple(videos), classes)


def _write_features(run: Run, splits: dict[str, list[Plan]], sample: Sample, fps: float, path: Path) -> None:
    appearance = Appearance.draw(_stream(sample, "appearance"), sample, run.num_classes, run.features.dimension)
    made_from = json.dumps(
        [run.num_classes, run.features.model_dump(mode="json"), run.source.model_dump(mode="json")], sort_keys=True
    )
    source = hashlib.sha256(made_from.encode()).hexdigest()
    with FeatureWriter(path) as writer:
        for subset, plans in splits.items():
            for plan in plans:
                features = plant(_stream(sample, "video", plan.name), plan, appearance, sample, run.features, fps)
                writer.add(
                    plan.name,
                    subset,
                    features,
                    fps=fps,
                    stride=run.features.stride,
                    window=run.features.window,
                    duration=plan.duration,
                    encoder=run.features.encoder,
                    source=source,
                )


def plant(
    rng: Generator, plan: Plan, appearance: Appearance, sample: Sample, features: Features, fps: float
) -> NDArray[np.float16]:
    """Features (T, C) float16 of one video.

    T counts the feature windows that end within the video. A phase is seen by a window in proportion to the part
    of the window that it fills, so that boundaries are ramps as wide as a window.
    """
    channels = appearance.phases.shape[2]
    steps = max(1, int((plan.duration * fps - features.window) / features.stride + 1e-9) + 1)
    planted = _background(rng, sample, steps, channels, features.stride / fps)
    video_gain = _around_one(rng, sample.gain)
    starts = np.arange(steps) * (features.stride / fps)
    width = features.window / fps
    context = _stream(sample, "context", plan.name)
    for event in draw_events(rng, context, plan, appearance, sample, features.stride / fps):
        gain = video_gain * _around_one(rng, sample.gain)
        begin = event.start
        for end, direction in event.phases:
            first = max(0, int((begin - width) * fps / features.stride))
            last = min(steps, int(end * fps / features.stride) + 2)
            inside = np.minimum(starts[first:last] + width, end) - np.maximum(starts[first:last], begin)
            seen = np.clip(inside / width, 0.0, 1.0) * gain
            planted[first:last] += seen.astype(np.float32)[:, None] * direction
            begin = end
    planted += np.float32(sample.noise) * rng.standard_normal((steps, channels), dtype=np.float32)
    return planted.astype(np.float16)


def _background(rng: Generator, sample: Sample, steps: int, channels: int, seconds: float) -> Single:
    """A constant of the video's own plus a slow AR(1) process, (T, C)."""
    knots = int(steps * seconds / DRIFT_SECONDS) + 2
    fresh = rng.standard_normal((knots, channels), dtype=np.float32)
    drift = fresh.copy()  # starts in its stationary distribution: standard deviation 1
    for knot in range(1, knots):
        drift[knot] = (
            np.float32(DRIFT_MEMORY) * drift[knot - 1] + np.float32(math.sqrt(1 - DRIFT_MEMORY**2)) * fresh[knot]
        )
    at = np.arange(steps) * (seconds / DRIFT_SECONDS)
    left = at.astype(int)
    part = (at - left).astype(np.float32)[:, None]
    slow = drift[left] * (1 - part) + drift[left + 1] * part
    constant = np.float32(sample.background) * rng.standard_normal(channels, dtype=np.float32)
    return np.asarray(np.float32(sample.drift) * slow + constant)


def _scores(splits: dict[str, list[Plan]], sample: Sample, classes: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """What a video-level classifier says of each video: {video: {class: score}}, best first, like a softmax's head."""
    scores = {}
    for plan in (plan for plans in splits.values() for plan in plans):
        rng = _stream(sample, "scores", plan.name)
        ranked = list(plan.labels)
        others = [int(label) for label in rng.permutation(len(classes)) if int(label) not in ranked]
        if rng.random() >= sample.score_accuracy and others:
            sister = ranked[0] ^ 1
            ranked.insert(0, sister if sister in others else others[0])
        ranked = list(dict.fromkeys(ranked + others))[:SCORED]
        score, named = rng.uniform(0.5, 0.9), {}
        for label in ranked:
            named[classes[label]] = round(score, 4)
            score *= rng.uniform(0.1, 0.3)
        scores[plan.name] = named
    return scores


def _stream(sample: Sample, *purpose: str) -> Generator:
    """A random stream of its own for each purpose and video, whatever the order in which they are used."""
    digest = hashlib.sha256("/".join(purpose).encode()).digest()
    words = tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
    return np.random.Generator(np.random.PCG64(SeedSequence(sample.seed, spawn_key=words)))


def _around_one(rng: Generator, spread: float) -> float:
    return float(rng.uniform(1 - spread, 1 + spread))
