"""What a run's parameters decide, piece by piece on small fixed inputs, so that two runs can be compared by pieces."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rdfa.data.annotations import Annotations, Video
from rdfa.data.detections import collect_detections
from rdfa.data.windows import EpochSampler, Grid, Window, collate, crop
from rdfa.evaluation.average_precision import mean_average_precision
from rdfa.evaluation.detect import decode, suppress
from rdfa.files import read_json
from rdfa.identity import paths
from rdfa.models.detector import Detector, Predictions, build
from rdfa.models.pyramid import pyramid_points
from rdfa.params import Composed
from rdfa.schema import Run
from rdfa.stages.detect import detect_stage
from rdfa.stages.evaluate import evaluate_stage
from rdfa.stages.fetch import fetch_stage
from rdfa.stages.train import train_stage
from rdfa.training.averaging import AveragedWeights
from rdfa.training.checkpoint import load_weights
from rdfa.training.losses import Normalizer, detection_losses
from rdfa.training.schedule import learning_rate, optimizer
from rdfa.training.targets import assign

Facets = dict[str, Any]
STEPS = 64
VALID = 40
"""Steps of the video with padding."""


def facets(run: Run) -> Facets:
    """Everything short of a training."""
    detector = build(run)
    initial = {name: value.clone() for name, value in detector.state_dict().items()}
    of_model = _of_model(shaken(detector), run)
    return {
        "parameters": {name: tuple(value.shape) for name, value in initial.items()},
        "initial weights": {(name, tuple(value.shape)): value for name, value in initial.items()},
        **of_model,
        "decayed": _decayed(build(run), run),
        "averaged weights": _averaged(run),
        "learning rates": [learning_rate(step, 4, run.training) for step in range(12)],
        "order and crops": _order_and_crops(run),
        "padded length": _padded_length(run),
        **_targets_and_losses(run),
        "detections": _detections(run),
        "metrics": _metrics(run),
    }


SHARED = ("initial weights", "decayed")
"""Facets that are compared where both runs have them: of the parameters that they have in common."""


ROUNDED = 1e-6
"""Largest relative difference of two gradients that count as equal: sums over steps may be taken in another order."""


def differing(before: Facets, after: Facets) -> set[str]:
    """Names of the facets in which two runs differ."""
    assert before.keys() == after.keys()
    return {name for name in before if not same(*_common(name, before[name], after[name]), rounded=name == "gradients")}


def _common(name: str, first: Any, second: Any) -> tuple[Any, Any]:
    if name not in SHARED:
        return first, second
    keys = first.keys() & second.keys()
    assert keys
    return {key: first[key] for key in keys}, {key: second[key] for key in keys}


def same(first: Any, second: Any, rounded: bool = False) -> bool:
    """Equality to the bit (or with `rounded` nearly so), of nested containers too."""
    if isinstance(first, Tensor):
        equal = isinstance(second, Tensor) and first.shape == second.shape
        return equal and bool((first - second).abs().max() <= (ROUNDED * second.abs().max() if rounded else 0))
    if isinstance(first, np.ndarray):
        return isinstance(second, np.ndarray) and np.array_equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key], rounded) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(same(*parts, rounded) for parts in zip(first, second, strict=True))
    return bool(first == second)


def shaken(detector: Detector) -> Detector:
    """A detector whose every parameter matters; parameters of one name and shape are shaken alike in all detectors."""
    for name, parameter in detector.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return detector


def trained(composed: Composed, root: Path) -> Facets:
    """A training with its detections and metrics."""
    where = paths(composed.run, root)
    fetch_stage(composed.run, root, None)
    train_stage(composed, root, tracked=False)
    detect_stage(composed.run, root)
    evaluate_stage(composed.run, root, tracked=False)
    weights = load_weights(where.folder / "checkpoint.safetensors")
    lines = [line.split(",") for line in (where.folder / "history.csv").read_text().splitlines()]
    looked = "test_mAP" in lines[0]
    return {
        "plain weights": {name: value for name, value in weights.items() if name.startswith("plain.")},
        "averaged weights": {name: value for name, value in weights.items() if name.startswith("averaged.")},
        "best look's weights": {name: v for name, v in weights.items() if name.startswith("best_test.")},
        "epochs": len(lines) - 1,
        "first losses": [line[2:5] for line in lines[1:3]],
        "looks": [line[-1] for line in lines] if looked else [],
        "detections": read_json(where.detections)["results"],
        "metrics": read_json(where.metrics)["mAP"],
    }


def _of_model(detector: Detector, run: Run) -> Facets:
    seen: Facets = {}
    backbone = detector.backbone
    parts = {"embedding": backbone.embedding, **{f"stem {i}": block for i, block in enumerate(backbone.stem)}}
    for name, part in parts.items():
        part.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output.detach()}))
    features = _normal(1, run.features.dimension, STEPS)
    detector.eval()
    whole = torch.ones(1, STEPS, dtype=torch.bool)
    predictions = detector(features, whole)
    sum(x.square().mean() for x in (*predictions.logits, *predictions.offsets)).backward()  # type: ignore[union-attr]
    found = {
        "embedding": seen["embedding"],
        "stem": [value for name, value in seen.items() if name.startswith("stem")][-1:],
        "outputs": [x.detach() for x in (*predictions.logits, *predictions.offsets)],
        "gradients": {name: p.grad for name, p in detector.named_parameters()},
    }
    padded, more = (_with_padding(detector, features[:, :, :VALID], padding) for padding in (STEPS - VALID, STEPS))
    leak = (padded[0][:, :VALID] - more[0][:, :VALID]).abs().max() > 1e-4
    return found | {"outputs with padding": padded, "padding reaches valid steps": bool(leak)}


def _with_padding(detector: Detector, features: Tensor, padding: int) -> list[Tensor]:
    """Logits and offsets of each level for features (1, C, T) followed by padded steps."""
    mask = torch.arange(features.shape[2] + padding)[None] < features.shape[2]
    with torch.inference_mode():
        predictions = detector(torch.nn.functional.pad(features, (0, padding)), mask)
    return [x.clone() for x in (*predictions.logits, *predictions.offsets)]


def _decayed(detector: Detector, run: Run) -> dict[str, bool]:
    group = {id(parameter) for parameter in optimizer(detector, run.training).param_groups[0]["params"]}
    return {name: id(parameter) in group for name, parameter in detector.named_parameters()}


def _averaged(run: Run) -> list[Tensor]:
    module = torch.nn.Linear(2, 1)
    torch.nn.init.zeros_(module.weight)
    average = AveragedWeights(module, run.training.average)
    torch.nn.init.ones_(module.weight)
    averaged = []
    for _ in range(3):
        average.update(module)
        averaged.append(average.weights["weight"].clone())
    return averaged


def _windows(run: Run) -> list[Window]:
    grid = Grid(stride=float(run.features.stride), window=float(run.features.window), fps=30.0)
    segments, labels = torch.tensor([[3.0, 9.0], [5.0, 30.0], [20.0, 36.0]]), torch.tensor([0, 1, 2])
    sizes = {"short": 40, "long": 3 * run.windows.max_length}
    return [
        Window(
            video=name,
            features=_normal(run.features.dimension, size),
            segments=segments,
            labels=labels,
            grid=grid,
            duration=100.0,
        )
        for name, size in sizes.items()
    ]


def _order_and_crops(run: Run) -> list[Any]:
    cut = [crop(window, run, np.random.default_rng([run.seed, 0])) for window in _windows(run)]
    return [list(EpochSampler(run, 8, 0)), [(window.features, window.segments, window.labels) for window in cut]]


def _padded_length(run: Run) -> int:
    return collate(_windows(run)[:1], run).features.shape[2]


def _targets_and_losses(run: Run) -> Facets:
    points = torch.cat(pyramid_points(STEPS, run.model.regression_ranges))
    window = _windows(run)[0]
    classes, offsets = assign(points, window.segments, window.labels, run.head_classes, run.training.center_radius)
    normalizer = Normalizer(run.training.loss)
    batch = (_predictions(run), classes[None], offsets[None], normalizer, run.training.loss)
    losses = [detection_losses(*batch) for _ in range(3)]
    return {"targets": (classes, offsets), "losses of three steps": [loss.total for loss in losses]}


def _predictions(run: Run) -> Predictions:
    sizes = [STEPS // 2**level for level in range(len(run.model.regression_ranges))]
    return Predictions(
        tuple(_normal(1, size, run.head_classes) for size in sizes),
        tuple(3 * _normal(1, size, 2).abs() for size in sizes),
        tuple(torch.ones(1, size, dtype=torch.bool) for size in sizes),
    )


def _detections(run: Run) -> Any:
    points = pyramid_points(STEPS, run.model.regression_ranges)
    return suppress(decode(_predictions(run), points, run.detection), run.detection)


def _metrics(run: Run) -> Any:
    generator = np.random.default_rng(0)
    starts = generator.uniform(0, 80, 12)
    segments = np.stack([starts, starts + generator.uniform(5, 20, 12)], axis=1)
    truth = Annotations((Video("v", "test", 100.0, None, segments, ("a", "b") * 6),), ("a", "b"))
    moved = segments + generator.normal(0, 3, segments.shape)
    found = collect_detections([("v", moved, generator.uniform(0, 1, 12), [0, 1] * 6)], ("a", "b"))
    return mean_average_precision(truth, found, run.evaluation.tious, run.evaluation.protocol).mean


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))
