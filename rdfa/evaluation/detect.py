"""Detection: a trained detector over the test split to scored, labelled segments in seconds.

A video is seen in one or several passes (`rdfa.data.windows.passes`); what they find goes through one suppression.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from rdfa.data.annotations import Video
from rdfa.data.detections import UNNAMED, Detections
from rdfa.data.features import FeatureStore
from rdfa.data.scores import Scores
from rdfa.data.spans import Span
from rdfa.data.windows import Grid, TestWindows, Window, collate, part, passes
from rdfa.errors import RdfaError
from rdfa.models.detector import Predictions
from rdfa.models.pyramid import pyramid_points
from rdfa.ops.nms import nms
from rdfa.schema import Detection, ProposalModel, Run

Candidates = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.int64]]
"""Segments (n, 2), scores (n,), class indices (n,)."""


def detect(
    run: Run,
    model: nn.Module,
    videos: Sequence[Video],
    classes: Sequence[str],
    store: FeatureStore,
    scores: Scores | None,
    device: torch.device,
) -> Detections:
    """Run a detector over whole videos.

    Args:
        videos: the test split.  classes: sorted names of all classes.
        scores: external classification scores, needed if `detection.external_classes` is not 0.

    Raises:
        RdfaError: a video has no external score although the run needs them.
    """
    windows = TestWindows(run, videos, classes, store)
    loader: DataLoader[Window] = DataLoader(windows, batch_size=None, num_workers=run.runtime.workers)
    model.eval()
    found: list[Candidates] = []
    for video in tqdm(loader, desc="detect", unit="video", disable=None, dynamic_ncols=True):
        plan = passes(video.features.shape[1], run)
        seen = [candidates(run, model, part(video, span, 0.0), span, device) for span in plan]
        found.append(_named(run, video, together(seen), classes, scores))
    labels = classes if run.names_classes or run.detection.external_classes else (UNNAMED,)
    return _columns([video.name for video in videos], found, labels)


@torch.inference_mode()
def candidates(run: Run, model: nn.Module, window: Window, span: Span, device: torch.device) -> Candidates:
    """What one pass of a detector finds in its part of a video, in steps of the video."""
    batch = collate([window], run)
    output: Any = model(batch.features.to(device), batch.mask.to(device))
    if isinstance(run.model, ProposalModel):
        from rdfa.evaluation.proposal_decode import decode_proposals

        segments, scores, labels = decode_proposals(output, run.model.score, run.detection)
    else:
        points = pyramid_points(output.logits[0].shape[1], run.model.regression_ranges)
        segments, scores, labels = decode(_in_core(output, points, span), points, run.detection)
    return segments.astype(np.float64) + span.start if span.start else segments, scores, labels


def _in_core(output: Predictions, points: Sequence[Tensor], span: Span) -> Predictions:
    """Predictions of the points in a pass's core only, so that none counts twice."""
    masks = []
    for mask, level in zip(output.masks, points, strict=True):
        position = level[:, 0] + span.start
        masks.append(mask & ((position >= span.core_start) & (position < span.core_stop)).to(mask.device))
    return output._replace(masks=tuple(masks))


def together(found: Sequence[Candidates]) -> Candidates:
    """The candidates of a video's passes."""
    segments, scores, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return segments, scores, labels


def decode(predictions: Predictions, points: Iterable[Tensor], params: Detection) -> Candidates:
    """Candidates of one video in grid steps (released code `inference_single_video`).

    Per level the `top_k` entries (point, class) with a class probability above `score_threshold`; their offsets
    around the point give segments, of which those longer than `min_duration` stay.
    """
    segments, scores, labels = [], [], []
    for logits, offsets, mask, level in zip(*predictions, points, strict=True):
        probability = (torch.sigmoid(logits[0].float()) * mask[0][:, None]).flatten()
        kept = torch.nonzero(probability > params.score_threshold).squeeze(1)
        order = torch.sort(probability[kept], descending=True, stable=True).indices[: params.top_k]
        kept = kept[order]
        point = level.to(logits.device)[kept // logits.shape[2]]
        distance = offsets[0].float()[kept // logits.shape[2]] * point[:, 3:]
        segment = torch.stack([point[:, 0] - distance[:, 0], point[:, 0] + distance[:, 1]], dim=1)
        long = segment[:, 1] - segment[:, 0] > params.min_duration
        segments.append(segment[long])
        scores.append(probability[kept][long])
        labels.append((kept % logits.shape[2])[long])
    return torch.cat(segments).cpu().numpy(), torch.cat(scores).cpu().numpy(), torch.cat(labels).cpu().numpy()


def suppress(candidates: Candidates, params: Detection) -> Candidates:
    """NMS and voting as the run asks, at most `max_segments` per video."""
    segments, scores, labels = candidates
    if params.nms == "none":
        order = np.argsort(-scores, kind="stable")[: params.max_segments]
        return segments[order], scores[order], labels[order]
    return nms(
        segments,
        scores,
        labels,
        method=params.nms,
        tiou_threshold=params.tiou,
        sigma=params.sigma,
        min_score=params.min_score,
        max_segments=params.max_segments,
        multiclass=params.multiclass,
        voting_threshold=params.voting,
        voting_weight=params.voting_weight,
    )


def finish(
    run: Run,
    candidates: Candidates,
    grid: Grid,
    duration: float,
    classes: Sequence[str],
    scores: Mapping[str, float] | None,
) -> Candidates:
    """One video's candidates in grid steps to its detections in seconds: suppressed, cut at the video's ends, named.

    Args:
        duration: seconds.  scores: the video's external score of each class, where the run needs them.
    """
    segments, confidence, labels = suppress(candidates, run.detection)
    seconds = np.clip(grid.to_seconds(segments.astype(np.float64)), 0.0, duration)
    if run.detection.external_classes:
        return _classify(seconds, confidence, scores or {}, classes, run.detection.external_classes)
    return seconds, confidence, labels


def _named(
    run: Run, window: Window, candidates: Candidates, classes: Sequence[str], scores: Scores | None
) -> Candidates:
    if run.detection.external_classes and (scores is None or window.video not in scores):
        raise RdfaError(f"external classification scores lack the video {window.video!r}; see docs/data.md")
    own = scores[window.video] if scores and run.detection.external_classes else None
    return finish(run, candidates, window.grid, window.duration, classes, own)


def _classify(
    seconds: NDArray[np.float64],
    confidence: NDArray[np.floating],
    scores: Mapping[str, float],
    classes: Sequence[str],
    top: int,
) -> Candidates:
    """Give each class-agnostic segment the video's `top` classes, score = sqrt(confidence * class score)."""
    indices = {name: index for index, name in enumerate(classes)}
    best = sorted(
        ((value, name) for name, value in scores.items() if name in indices), key=lambda item: (-item[0], item[1])
    )[:top]
    fused = [np.sqrt(confidence * value) for value, _ in best]
    labels = [np.full(len(confidence), indices[name], dtype=np.int64) for _, name in best]
    return np.tile(seconds, (len(best), 1)), np.concatenate(fused), np.concatenate(labels)


def _columns(names: list[str], found: list[Candidates], classes: Sequence[str]) -> Detections:
    counts = [len(scores) for _, scores, _ in found]
    return Detections(
        videos=tuple(names),
        video_index=np.repeat(np.arange(len(names)), counts),
        segments=np.concatenate([segments for segments, _, _ in found]).astype(np.float64),
        scores=np.concatenate([scores for _, scores, _ in found]).astype(np.float64),
        label_index=np.concatenate([labels for _, _, labels in found]).astype(np.int64),
        classes=tuple(classes),
    )
