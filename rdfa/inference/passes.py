"""The detector over one video of any length, in memory that does not depend on the length.

A video that fits into one pass goes the way of `rdfa.evaluation.detect`. A longer one is read and detected pass by
pass (`rdfa.data.spans`); of each pass only the pyramid points in its core give candidates, so that no point counts
twice and none is lost, and one suppression over all of them makes the video's detections.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rdfa.data.feature_files import VideoFeatures
from rdfa.data.spans import Span, spans
from rdfa.data.windows import Grid, Window
from rdfa.errors import RdfaError
from rdfa.evaluation.detect import Candidates, candidates, finish, together
from rdfa.schema import ProposalModel, Run

WHOLE_BYTES = 1 << 28
"""Videos that are resampled are read whole up to this size, as in training; of larger ones only what is needed."""


@dataclass(frozen=True, kw_only=True)
class Passes:
    """How a video is cut, in steps after thinning."""

    length: int
    """Steps of a pass."""
    overlap: float
    """Share of a pass that the next one sees too."""


def detect_video(
    run: Run,
    model: nn.Module,
    video: VideoFeatures,
    grid: Grid,
    duration: float,
    classes: Sequence[str],
    scores: Mapping[str, float] | None,
    passes: Passes,
) -> Candidates:
    """Detections of one video in seconds: segments (n, 2), scores (n,), class indices (n,).

    A video of p passes keeps up to p times `detection.max_segments`: as many per time as a video of one pass.

    Args:
        grid: of the features as stored.  duration: seconds.
        scores: the video's external score of each class, where the run needs them.
    """
    keep, device = run.features.keep_every, next(model.parameters()).device
    found: list[Candidates] = []
    if run.windows.resample:
        features, grid = _resampled(run, video, grid)
        plan, read = spans(run.windows.max_length, run.windows.max_length, 0, 1), iter([features])
    else:
        total = -(-video.shape[0] // keep)
        plan = spans(total, passes.length, passes.overlap, run.model.coarsest)
        grid = Grid(stride=grid.stride * keep, window=grid.window, fps=grid.fps)
        read = _stretches(video, plan, keep)
    for span, part in zip(plan, read, strict=True):
        found.append(candidates(run, model, _window(video, part, grid, duration), span, device))
    limit = run.detection.max_segments * len(plan)
    longer = run.model_copy(update={"detection": run.detection.model_copy(update={"max_segments": limit})})
    return finish(longer, together(found), grid, duration, classes, scores)


def _stretches(video: VideoFeatures, plan: Sequence[Span], keep: int) -> Iterator[Tensor]:
    for span in plan:
        yield _as_input(video.read(span.start * keep, min(span.stop * keep, video.shape[0]), keep))


def _resampled(run: Run, video: VideoFeatures, grid: Grid) -> tuple[Tensor, Grid]:
    """A whole video stretched to the run's length by linear interpolation, and its grid (rdfa.data.windows)."""
    keep, length = run.features.keep_every, run.windows.max_length
    total = -(-video.shape[0] // keep)
    span = ((total - 1) * grid.stride * keep + grid.window) / length
    stretched = Grid(stride=span, window=span, fps=grid.fps)
    if 4 * total * video.shape[1] <= WHOLE_BYTES:
        features = _as_input(video.read(0, video.shape[0], keep))
        return F.interpolate(features[None], size=length, mode="linear", align_corners=False)[0], stretched
    source = np.maximum((np.arange(length) + 0.5) * total / length - 0.5, 0.0)
    rows = [_between(video, position, keep, total) for position in source.tolist()]
    return _as_input(np.stack(rows)), stretched


def _between(video: VideoFeatures, position: float, keep: int, total: int) -> NDArray[np.float32]:
    """Features (C,) at a position between two steps."""
    before = int(position)
    after = min(before + 1, total - 1)
    share = np.float32(position - before)
    first, second = (video.read(step * keep, step * keep + 1)[0] for step in (before, after))
    return np.asarray((1 - share) * first + share * second)


def _as_input(rows: NDArray[np.float32]) -> Tensor:
    """(T, C) to (C, T)."""
    return torch.from_numpy(np.require(rows, requirements=["W"])).T


def _window(video: VideoFeatures, features: Tensor, grid: Grid, duration: float) -> Window:
    nothing = torch.zeros(0, 2)
    return Window(
        video=video.video,
        features=features,
        segments=nothing,
        labels=nothing[:, 0].long(),
        grid=grid,
        duration=duration,
    )


def refuse_unfit(run: Run, passes: Passes) -> None:
    """Refuse passes that the run's detector cannot make, before any work.

    Raises:
        RdfaError: names the number that cannot be.
    """
    spans(1, passes.length, passes.overlap, run.model.coarsest)
    length = run.windows.max_length
    if passes.length == length:
        return
    if run.windows.resample:
        raise RdfaError(f"steps per pass: this run stretches every video to {length} steps and sees it in one pass")
    if isinstance(run.model, ProposalModel):
        raise RdfaError(f"steps per pass: this run's detector sees windows of {length} steps and no others")
