"""`rdfa detect --checkpoint`: what a trained run finds in features from anywhere."""

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from rdfa.data.annotations import read_annotations
from rdfa.data.detections import collect_detections, write_detections
from rdfa.data.feature_files import Timing, VideoFeatures, open_features
from rdfa.data.scores import Scores, read_scores
from rdfa.errors import RdfaError
from rdfa.evaluation.detect import Candidates
from rdfa.inference.passes import Passes
from rdfa.inference.timing import settle, told
from rdfa.inference.trained import TrainedDetector, load
from rdfa.training.devices import set_arithmetic


def detect_files_stage(
    checkpoint: Path,
    features: Path,
    out: Path,
    *,
    given: Timing,
    steps: int | None = None,
    overlap: float | None = None,
    device: str = "auto",
    scores: Path | None = None,
    classes: Path | None = None,
    timeline: Path | None = None,
) -> list[str]:
    """Write the detections in a feature file or a folder of them; returns remarks on what had to be assumed.

    Args:
        checkpoint: folder of a trained run.  given: what the files do not say.
        steps, overlap: see `rdfa.inference.TrainedDetector.detect`.
        scores: external class scores.  classes: annotations with the class names, where run.json has none.
        timeline: SVG to draw.

    Raises:
        RdfaError: any of the inputs does not fit; all are checked before the first video is detected, but for the
            features' values, which are checked as they are read.
    """
    names = None if classes is None else read_annotations(classes, faulty="keep").classes
    detector = load(checkpoint, device=device, classes=names)
    passes = detector.passes(steps, overlap)
    videos = open_features(features, detector.run.features.dimension)
    if given.duration is not None and len(videos) > 1:
        raise RdfaError(f"{features}: one --duration for {len(videos)} videos; store it with the features instead")
    if timeline is not None:
        from rdfa.reporting.timeline import refuse_timeline, write_timeline

        refuse_timeline(timeline, len(videos))
    external = _external(detector, videos, scores)
    settled = [settle(detector.run, video, given) for video in videos]
    set_arithmetic(detector.run)
    rows = _rows(detector, videos, given, external, passes)
    found = collect_detections(rows, detector.names(external is not None))
    write_detections(out, found)
    if timeline is not None:
        write_timeline(timeline, found, [duration for _, duration, _ in settled])
    remarks = told(detector.run, [assumed for _, _, assumed in settled])
    if detector.run.detection.external_classes and external is None:
        remarks.append("this run needs external class scores (--scores) to name its segments: all are called 'action'")
    return remarks


def _external(detector: TrainedDetector, videos: list[VideoFeatures], path: Path | None) -> Scores | None:
    if path is None:
        return None
    if not detector.run.detection.external_classes:
        raise RdfaError(f"{path}: this run's detector names the classes itself and uses no external scores")
    scores = read_scores(path)
    missing = sorted(video.video for video in videos if video.video not in scores)
    if missing:
        raise RdfaError(f"{path}: lacks {len(missing)} of {len(videos)} videos, the first {missing[0]!r}")
    for video in videos:
        detector.refuse_scores(f"{path}: video {video.video!r}", scores[video.video])
    return scores


def _rows(
    detector: TrainedDetector, videos: list[VideoFeatures], given: Timing, external: Scores | None, passes: Passes
) -> Iterator[tuple[str, *Candidates]]:
    for video in tqdm(videos, desc="detect", unit="video", disable=None, dynamic_ncols=True):
        scores = None if external is None else external[video.video]
        yield (video.video, *detector.detect_video(video, given, scores, passes))
