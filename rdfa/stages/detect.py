"""`rdfa detect`: a trained run's detections on the test split."""

from pathlib import Path

from rdfa.data.detections import write_detections
from rdfa.errors import RdfaError
from rdfa.evaluation.detect import detect
from rdfa.identity import paths
from rdfa.models.detector import Detector, build
from rdfa.schema import Run
from rdfa.stages.opened import CHECKPOINT, open_data
from rdfa.training.checkpoint import apply_weights, load_weights
from rdfa.training.devices import choose_device, set_arithmetic


def detect_stage(run: Run, root: Path) -> Path:
    """Write the detections of a trained run on its test split; returns their path."""
    where = paths(run, root)
    data = open_data(run, where)
    device = choose_device(run)
    model = load_detector(run, where.folder).to(device)
    set_arithmetic(run)
    videos = data.annotations.subset(run.test_subset).videos
    found = detect(run, model, videos, data.annotations.classes, data.store, data.scores, device)
    write_detections(where.detections, found)
    return where.detections


def load_detector(run: Run, folder: Path) -> Detector:
    """A trained run's detector, with the weights that `detection.weights` names.

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
