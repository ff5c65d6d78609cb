"""A trained detector, built from a run's folder alone, and what it finds in features from anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from rdfa.data.activitynet_json import refuse_invisible
from rdfa.data.detections import UNNAMED
from rdfa.data.feature_files import Timing, VideoFeatures, in_memory
from rdfa.data.spans import OVERLAP
from rdfa.errors import RdfaError
from rdfa.evaluation.detect import Candidates
from rdfa.files import read_json
from rdfa.identity import CHECKPOINT, PARAMS_YAML, RUN_JSON
from rdfa.inference.passes import Passes, detect_video, refuse_unfit
from rdfa.inference.timing import settle
from rdfa.models.detector import build
from rdfa.params import read_run
from rdfa.records import intact
from rdfa.schema import Run
from rdfa.training.checkpoint import apply_weights, load_weights
from rdfa.training.devices import choose_device


class Segment(NamedTuple):
    """One detection."""

    label: str
    score: float
    start: float
    """Seconds."""
    end: float
    """Seconds."""


@dataclass(frozen=True, kw_only=True)
class TrainedDetector:
    """A trained run that detects."""

    run: Run
    """Its parameters."""
    classes: tuple[str, ...]
    """Class index → name."""
    model: nn.Module
    """The network, in evaluation mode, on its device."""

    def detect(
        self,
        features: Any,
        *,
        fps: float | None = None,
        stride: float | None = None,
        window: float | None = None,
        duration: float | None = None,
        scores: Mapping[str, float] | None = None,
        steps: int | None = None,
        overlap: float | None = None,
    ) -> list[Segment]:
        """Detect in one video; segments in descending order of score.

        Args:
            features: array or tensor (T, C), floating-point and finite: step i is what the encoder saw from frame
                i * stride on.
            fps, stride, window: frames per second, and frames; by default what the run was trained on.
            duration: seconds of the video; by default the end of the last feature's window.
            scores: the video's external score of each class, for runs whose detector does not name classes itself
                (`detection.external_classes`). Without them their segments have the label "action".
            steps: steps per pass of the detector; by default the training's length. Longer videos are cut into passes.
            overlap: share of a pass that the next one sees too; by default `windows.overlap` of the run, or a half.

        Raises:
            RdfaError: features of another width or kind, a number that contradicts the training, an unknown fps, or
                scores that name none of the run's classes.
        """
        video = in_memory(features, self.run.features.dimension)
        given = Timing(fps=fps, stride=stride, window=window, duration=duration)
        passes = self.passes(steps, overlap)
        if scores is not None:
            self.refuse_scores("scores", scores)
        segments, confidence, labels = self.detect_video(video, given, scores, passes)
        names = self.names(scores is not None)
        return [
            Segment(names[label], score, start, end)
            for label, score, (start, end) in zip(labels.tolist(), confidence.tolist(), segments.tolist(), strict=True)
        ]

    def detect_video(
        self, video: VideoFeatures, given: Timing, scores: Mapping[str, float] | None, passes: Passes
    ) -> Candidates:
        """The same from features that are read as needed: segments (n, 2) in seconds, scores (n,), indices (n,) into
        `names`; best first."""
        run = self.run
        grid, duration, _ = settle(run, video, given)
        if run.detection.external_classes and scores is None:
            unnamed = run.detection.model_copy(update={"external_classes": 0})
            run = run.model_copy(update={"detection": unnamed})
        found = detect_video(run, self.model, video, grid, duration, self.classes, scores, passes)
        order = (-found[1]).argsort(kind="stable")
        return found[0][order], found[1][order], found[2][order]

    def refuse_scores(self, place: str, scores: Mapping[str, float]) -> None:
        """Refuse external scores that cannot name a segment: none of them is of a class of the run."""
        if self.run.detection.external_classes and not any(name in scores for name in self.classes):
            raise RdfaError(f"{place}: none of the run's {len(self.classes)} classes has a score")

    def names(self, scored: bool) -> tuple[str, ...]:
        """Label index → name, in what is detected with or without external scores."""
        return self.classes if self.run.names_classes or scored else (UNNAMED,)

    def passes(self, steps: int | None = None, overlap: float | None = None) -> Passes:
        """How long videos are cut, by default as the run's evaluation cuts them; refuses what cannot be, naming it."""
        windows = self.run.windows
        trained = OVERLAP if windows.overlap is None else windows.overlap
        chosen = Passes(
            length=windows.max_length if steps is None else steps, overlap=trained if overlap is None else overlap
        )
        refuse_unfit(self.run, chosen)
        return chosen


def load(checkpoint: Path | str, *, device: str = "auto", classes: Sequence[str] | None = None) -> TrainedDetector:
    """Build the detector of a trained run from its folder; nothing else is needed.

    Args:
        checkpoint: a folder of `results/runs/`, or the `checkpoint.safetensors` in it. It may be copied anywhere with
            the `params.yaml` and the `run.json` beside it.
        device: auto, cpu or cuda; auto takes CUDA where there is one.
        classes: names of the classes in the order of their indices, where run.json does not have them.

    Raises:
        RdfaError: a file is absent, damaged or of another version, or the classes are not known.
    """
    path = Path(checkpoint)
    folder = path.parent if path.is_file() else path
    if path.is_file() and path.name != CHECKPOINT:
        raise RdfaError(
            f"{path}: not a run's {CHECKPOINT}; a checkpoint of the official code becomes a run by "
            "`rdfa import-checkpoint`"
        )
    for name in (CHECKPOINT, PARAMS_YAML, RUN_JSON):
        if not (folder / name).is_file():
            raise RdfaError(f"{folder}: has no {name}; give the folder of a trained run, as in results/runs/")
    run = read_run(intact(folder / PARAMS_YAML))
    names = tuple(classes) if classes is not None else _classes(folder / RUN_JSON)
    if len(names) != run.num_classes or len(set(names)) != len(names):
        raise RdfaError(f"{folder}: {len(set(names))} class names, the run's parameters say {run.num_classes}")
    if device not in ("auto", "cpu", "cuda"):
        raise RdfaError(f"device {device!r}: must be auto, cpu or cuda")
    run = run.model_copy(update={"runtime": run.runtime.model_copy(update={"device": device})})
    model = load_detector(run, folder).to(torch.device(choose_device(run)))
    return TrainedDetector(run=run, classes=names, model=model)


def load_detector(run: Run, folder: Path) -> nn.Module:
    """A trained run's network, with the weights that `detection.weights` names, in evaluation mode on the CPU.

    Raises:
        RdfaError: there is no checkpoint, it has no such weights, or they do not fit.
    """
    path = folder / CHECKPOINT
    weights = load_weights(path)
    prefix = f"{run.detection.weights}."
    chosen = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    if not chosen:
        raise RdfaError(f"{path}: holds no weights '{run.detection.weights}'; set detection.weights to 'averaged'")
    model = build(run)
    apply_weights(model, chosen, path)
    return model.eval()


def _classes(path: Path) -> tuple[str, ...]:
    record = read_json(path)
    names = record.get("classes") if isinstance(record, dict) else None
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise RdfaError(
            f"{path}: has no class names; give the annotations that the run was trained on (--classes FILE)"
        )
    refuse_invisible(path, names)
    return tuple(names)
