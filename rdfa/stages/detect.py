"""`rdfa detect`: a trained run's detections on the test split."""

from pathlib import Path

from rdfa.data.detections import write_detections
from rdfa.evaluation.detect import detect
from rdfa.identity import paths
from rdfa.inference.trained import load_detector
from rdfa.schema import Run
from rdfa.stages.opened import open_data
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
