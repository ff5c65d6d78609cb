"""Extremes of videos and models: one step or a million, no positives, very many classes, features not finite."""

from collections.abc import Iterator
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from rdfa.data.feature_files import Timing, VideoFeatures, in_memory, open_features
from rdfa.data.features import FeatureStore, FeatureWriter
from rdfa.data.spans import Span
from rdfa.data.windows import Grid, Window, collate
from rdfa.evaluation.detect import candidates
from rdfa.inference.trained import TrainedDetector, load
from rdfa.models.detector import build
from rdfa.models.pyramid import pyramid_points
from rdfa.params import Composed, compose
from rdfa.schema import ProposalModel, Run
from rdfa.stages.detect import detect_stage
from rdfa.stages.evaluate import evaluate_stage
from rdfa.stages.fetch import fetch_stage
from rdfa.stages.new_dataset import Request, new_dataset_stage
from rdfa.stages.train import train_stage
from rdfa.training.criterion import criterion
from rdfa.training.proposal_targets import best_tiou
from rdfa.training.targets import assign
from tests.conftest import ROOT, TINY
from tests.data import own_files
from tests.faults import extremes_oracles as oracle
from tests.faults.campaign import Kind, Outcome, Scene
from tests.faults.extremes_evaluation import refused, verdict
from tests.proposals.conftest import OF_DETECTOR, SIZES

CHANNELS = 24
"""Of `TINY`."""
SEEN = 25
"""Steps on each side that `_local` depends on (tests/inference/test_long_video.py)."""


def _composed(model: str, variant: str, *overrides: str) -> Composed:
    return compose(
        dataset="thumos14", model=model, variant=variant, scale="sample", overrides=overrides, folder=ROOT / "params"
    )


def _local() -> TrainedDetector:
    """A detector with random weights that looks around itself only, and says something at each point."""
    every = ("num_classes=1", "detection.nms=none", "detection.max_segments=1000000", "detection.top_k=1000000")
    overrides = (*TINY, *every, "detection.min_duration=0", "model.stem.blocks=0", "model.branch.dual=none")
    run = _composed("rdfa", "paper", *overrides).run
    return TrainedDetector(run=run, classes=("a",), model=build(run).eval())


def million_steps(scene: Scene) -> Iterator[Outcome]:
    """A very long video through store and detection: around random places the same as of these stretches alone."""
    torch.set_num_threads(1)
    steps, path = scene.count(50_000, 1_000_000), scene.folder / "long.h5"
    rng = np.random.default_rng(scene.random.getrandbits(32))
    features = rng.standard_normal((steps, CHANNELS), dtype=np.float32).astype(np.float16)
    detector = _local()
    about = detector.run.features
    rate = float(about.fps or 30.0)
    duration = ((steps - 1) * about.stride + about.window) / rate
    told: dict[str, Any] = {"fps": rate, "stride": about.stride, "window": about.window, "duration": duration}
    with FeatureWriter(path) as writer:
        writer.add("long", "test", features, **told, encoder="noise", source="noise")
    store = FeatureStore(path)
    yield verdict(np.array_equal(store.read("long"), features.astype(np.float32)), "the store holds other features")
    store.close()
    (video,) = open_features(path, CHANNELS)
    found = _rows(detector, video, 4096)
    for _ in range(scene.count(5, 40)):
        first = 4 * scene.random.randrange((steps - 600) // 4)
        stretch = in_memory(features[first : first + 512], CHANNELS)
        alone = _rows(detector, stretch, 1024)
        alone[:, :2] += first * about.stride / rate
        yield _same_inside(found, alone, [(first + side) * about.stride / rate for side in (200, 312)])


def _rows(detector: TrainedDetector, video: VideoFeatures, length: int) -> Any:
    segments, scores, _ = detector.detect_video(video, Timing(), None, detector.passes(length, 0.5))
    return np.column_stack([segments, scores])


def _same_inside(whole: Any, alone: Any, inside: list[float]) -> Outcome:
    """Whether each detection that lies inside is among the other's."""
    low, high = inside
    distances = []
    for some, others in ((whole, alone), (alone, whole)):
        mine = some[(some[:, 0] >= low) & (some[:, 1] <= high)]
        near = others[(others[:, 1] >= low - 1) & (others[:, 0] <= high + 1)]
        if len(mine) < 10 or len(near) == 0:
            return verdict(False, f"{len(mine)} detections from {low:.1f} to {high:.1f} s")
        distances.append(float(np.abs(mine[:, None] - near[None]).max(2).min(1).max()))
    return verdict(max(distances) < 1e-3, f"from {low:.1f} to {high:.1f} s other detections, by {max(distances):.2g}")


def one_step(scene: Scene) -> Iterator[Outcome]:
    """A data set whose videos have one feature each, or two or three, from its description to its metrics."""
    torch.set_num_threads(1)
    for steps in ((1,), (1, 2, 3)):
        place = own_files.workspace(scene.folder / f"steps{len(steps)}")
        made = [_short(each, steps[number % len(steps)], scene) for number, each in enumerate(own_files.recordings())]
        with chdir(place):
            own_files.write_labels(Path("labels.csv"), made)
            own_files.write_features(Path("features"), made, "npy")
            grid = {"stride": own_files.STRIDE, "window": own_files.WINDOW, "fps": own_files.FPS}
            files = {"annotations": Path("labels.csv"), "features": Path("features")}
            new_dataset_stage(Request(name="mine", **files, **grid, layout="TC"))  # type: ignore[arg-type]
            small = ("model.width=16", "model.heads.width=16", "model.block.state=4", "training.epochs=2")
            composed = compose(dataset="mine", model="rdfa", variant="paper", scale="full", overrides=small)
            fetch_stage(composed.run, Path(), None)
            folder = train_stage(composed, Path(), tracked=False)
            detect_stage(composed.run, Path())
            evaluate_stage(composed.run, Path(), tracked=False)
            detector = load(folder, device="cpu")
            for each in made:
                found = detector.detect(each.features, duration=each.duration)
                inside = all(0 <= row.start <= row.end <= each.duration and np.isfinite(row.score) for row in found)
                yield verdict(inside, f"{len(each.features)} steps: a detection outside of the video")


def _short(each: own_files.Recording, steps: int, scene: Scene) -> own_files.Recording:
    duration = ((steps - 1) * own_files.STRIDE + own_files.WINDOW) / own_files.FPS
    start = scene.random.uniform(0, duration / 2)
    own = [(start, scene.random.uniform(start + 0.05, duration), label) for label in "ab"]
    return own_files.Recording(each.name, each.subset, duration, each.features[:steps], own)


def no_positives(scene: Scene) -> Iterator[Outcome]:
    """A batch without an instance: the loss is that of the background, and every gradient is finite."""
    torch.set_num_threads(1)
    points = [(model, "paper", TINY) for model in ("rdfa",)]
    others = [("actionformer", "paper"), ("temporalmaxer", "paper"), ("convolution", "plain")]
    points += [(*each, tuple(setting for setting in TINY if "model.block" not in setting)) for each in others]
    maps = [(model, variant, (*SIZES, *more)) for (model, variant), more in OF_DETECTOR.items()]
    for model, variant, settings in (*points, *maps):
        run = _composed(model, variant, *settings).run
        network, measure = build(run).train(), criterion(run)
        torch.manual_seed(scene.random.getrandbits(32))
        batch = collate([_window(torch.randn(CHANNELS, 32)) for _ in range(2)], run)
        output = network(batch.features, batch.mask)
        losses = measure(output, batch, lambda own: own)
        losses.total.backward()
        gradients = [each.grad for each in network.parameters() if each.grad is not None]
        finite = bool(torch.isfinite(losses.total)) and all(bool(torch.isfinite(each).all()) for each in gradients)
        yield verdict(finite and bool(gradients) and losses.positives == 0, f"{model} {variant}: {losses.total}")
        if not isinstance(run.model, ProposalModel):
            yield _of_background(run, output, losses.classification)


def _of_background(run: Run, output: Any, classification: torch.Tensor) -> Outcome:
    loss = run.training.loss
    logits = torch.cat(output.logits, dim=1)[torch.cat(output.masks, dim=1)].detach().numpy()
    divisor = loss.normalizer_momentum * loss.normalizer_initial + (1 - loss.normalizer_momentum)
    expected = oracle.focal(logits, np.zeros_like(logits), loss.focal_alpha, loss.focal_gamma) / divisor
    right = loss.label_smoothing > 0 or abs(float(classification) - expected) <= 1e-5 * expected
    return verdict(right, f"{run.model_name}: {float(classification)}, not {expected}")


def _window(features: torch.Tensor, segments: Any = (), labels: Any = ()) -> Window:
    return Window(
        video="v",
        features=features,
        segments=torch.tensor(segments, dtype=torch.float32).reshape(-1, 2),
        labels=torch.tensor(labels, dtype=torch.int64),
        grid=Grid(stride=4, window=16, fps=25.0),
        duration=100.0,
    )


def many_classes(scene: Scene) -> Iterator[Outcome]:
    """10^4 classes in heads, loss and decoding: the candidates are those of the largest probabilities."""
    torch.set_num_threads(1)
    classes = scene.count(2_000, 10_000)
    settings = (*TINY, f"num_classes={classes}", "detection.score_threshold=0", "detection.top_k=50")
    run = _composed("rdfa", "paper", *settings).run
    network, measure = build(run).eval(), criterion(run)
    torch.manual_seed(scene.random.getrandbits(32))
    label = scene.random.randrange(classes)
    window = _window(torch.randn(CHANNELS, 64), [[20.0, 27.0]], [label])
    batch = collate([window], run)
    losses = measure(network(batch.features, batch.mask), batch, lambda own: own)
    losses.total.backward()
    yield verdict(bool(torch.isfinite(losses.total)) and losses.positives > 0, f"{classes} classes: {losses.total}")
    output = network(batch.features, batch.mask)
    _, scores, labels = candidates(run, network, window, Span(0, 64, 0, 64), torch.device("cpu"))
    levels = [torch.sigmoid(level[0]).detach().numpy().ravel() for level in output.logits]
    best = np.concatenate([np.sort(level)[-50:] for level in levels])
    # Segments of no length are left out, so the scores are some of the largest ones of each level.
    among = len(scores) > 0 and float(np.abs(scores[:, None] - best).min(1).max()) < 1e-6
    yield verdict(among and set(labels.tolist()) <= set(range(classes)), f"{classes} classes, decoded: {scores[:5]}")


def many_targets(scene: Scene) -> Iterator[Outcome]:
    """10^5 instances in one window: the targets of random points are those of the rule."""
    torch.set_num_threads(1)
    count, classes = scene.count(5_000, 100_000), 200
    rng = np.random.default_rng(scene.random.getrandbits(32))
    starts = rng.integers(0, 2304 * 8, count) / 8  # exact in single precision
    segments = np.stack([starts, starts + rng.integers(1, 400, count) / 8], axis=1)
    labels = rng.integers(0, classes, count)
    ranges = tuple((float(low), float(high)) for low, high in ((0, 4), (4, 8), (8, 16), (16, 10000)))
    points = torch.cat(pyramid_points(2304, ranges))
    targets, offsets = assign(points, torch.tensor(segments).float(), torch.tensor(labels), classes, 1.5)
    for _ in range(scene.count(30, 200)):
        row = scene.random.randrange(len(points))
        expected = oracle.assigned(points[row].tolist(), segments, labels, 1.5)
        found = set(torch.nonzero(targets[row]).ravel().tolist())
        finite = bool(torch.isfinite(offsets[row]).all())
        yield verdict(found == expected and finite, f"point {points[row].tolist()}: {sorted(found)}")


def many_best(scene: Scene) -> Iterator[Outcome]:
    """10^5 instances in one window of a detector on a map: the best tIoU of random segments is the plain one."""
    torch.set_num_threads(1)
    count = scene.count(5_000, 100_000)
    rng = np.random.default_rng(scene.random.getrandbits(32))
    instances, asked = (np.sort(rng.uniform(0, 100, (number, 2)), axis=1) for number in (count, 1000))
    found = best_tiou(torch.tensor(asked)[None], torch.tensor(instances)[None])[0].tolist()
    for row in scene.random.sample(range(1000), scene.count(5, 20)):
        best = max(oracle.tiou(asked[row], each) for each in instances.tolist())
        yield verdict(abs(found[row] - best) < 1e-9, f"{asked[row]}: {found[row]}, not {best}")


def no_numbers(scene: Scene) -> Iterator[Outcome]:
    """One feature that is NaN or infinite, wherever it is read from: refused with video and place."""
    made = own_files.recordings()
    for _ in range(scene.count(3, 30)):
        value = scene.random.choice([np.nan, np.inf, -np.inf])
        one, step, channel = (scene.random.randrange(bound) for bound in (len(made), 100, 8))
        name, where = made[one].name, f"step {step}, channel {channel}"
        path = scene.folder / "store.h5"
        _stored(path, made)
        with h5py.File(path, "r+") as file:
            file[f"train/{name}"][step, channel] = value
        yield refused(partial(FeatureStore(path).read, name), path.name, name, where)
        made[one].features[step, channel] = value
        array = scene.folder / f"{name}.npy"
        np.save(array, made[one].features)
        yield refused(partial(open_features(array, 8)[0].read, 0, 100), array.name, where)
        yield refused(partial(_stored, scene.folder / "new.h5", made), "new.h5", name, where)
        made[one].features[step, channel] = 0.0


def _stored(path: Path, made: list[own_files.Recording]) -> None:
    about: dict[str, Any] = {"fps": 25.0, "stride": 5, "window": 10, "duration": 10.0, "encoder": "e", "source": "s"}
    with FeatureWriter(path) as writer:
        for each in made:
            writer.add(each.name, "train", each.features, **about)


KINDS = (
    Kind("10^6 steps in one video", million_steps, limit=300),
    Kind("one step in a video", one_step, limit=120),
    Kind("no positives in a batch", no_positives),
    Kind("10^4 classes, detected", many_classes),
    Kind("10^5 instances in one window", many_targets, limit=120),
    Kind("10^5 instances on a map of proposals", many_best),
    Kind("NaN and infinite features", no_numbers),
)
