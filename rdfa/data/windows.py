"""From the feature store to the detector's input: the time grid, crops, resampling and padding.

`Grid` is the one place where seconds and grid steps are converted. `TrainingWindows` and `TestWindows` are the two
data sets of a run; `collate` pads a list of windows to a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, Sampler

from rdfa.data.annotations import Video
from rdfa.data.features import FeatureStore
from rdfa.data.spans import Span, spans
from rdfa.errors import RdfaError
from rdfa.schema import Run

FloatArray = NDArray[np.float64]
_TRIALS = 5000
"""Random crops tried before one that holds an instance is built around an instance instead."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Feature step i of a video covers `window` frames from frame i * stride on; its time is their centre."""

    stride: float
    """Frames between steps."""
    window: float
    """Frames seen by a step."""
    fps: float

    def to_seconds(self, steps: FloatArray) -> FloatArray:
        """t = (i * stride + window / 2) / fps."""
        return (steps * self.stride + 0.5 * self.window) / self.fps

    def to_steps(self, seconds: FloatArray) -> FloatArray:
        """The inverse of `to_seconds`."""
        return (seconds * self.fps - 0.5 * self.window) / self.stride


@dataclass(frozen=True, kw_only=True)
class Window:
    """One input of the detector."""

    video: str
    features: Tensor
    """(C, T) float32."""
    segments: Tensor
    """(M, 2) float32, grid steps."""
    labels: Tensor
    """(M,) int64."""
    grid: Grid
    duration: float
    """Seconds."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Windows padded to one length."""

    windows: list[Window]
    features: Tensor
    """(B, C, T) float32, zero in padded steps."""
    mask: Tensor
    """(B, T) bool, true where a step is not padding."""

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, from where it goes to a GPU while that computes; DataLoader calls this."""
        return replace(self, features=self.features.pin_memory(), mask=self.mask.pin_memory())


class _Windows(Dataset[Window]):
    """What training and test have in common: whole videos on their grid."""

    def __init__(self, run: Run, videos: Sequence[Video], classes: Sequence[str], store: FeatureStore) -> None:
        self.run, self.videos, self.store = run, list(videos), store
        indices = {name: index for index, name in enumerate(classes)}
        agnostic = run.head_classes == 1
        self.labels = [torch.tensor([0 if agnostic else indices[name] for name in v.labels]) for v in self.videos]

    def __len__(self) -> int:
        return len(self.videos)

    def placed(self, index: int) -> tuple[int, Grid]:
        """Steps of a whole video, and where they are, without reading it."""
        name, keep = self.videos[index].name, self.run.features.keep_every
        attributes, steps = self.store.attributes(name), -(-self.store.shape(name)[0] // keep)
        stride, window = float(attributes.stride) * keep, float(attributes.window)
        if self.run.windows.resample:
            length = self.run.windows.max_length
            stride = window = ((steps - 1) * stride + window) / length
            steps = length
        return steps, Grid(stride=stride, window=window, fps=attributes.fps)

    def segments(self, index: int, grid: Grid) -> Tensor:
        """The instances of a video, (M, 2) float32 in steps of its grid."""
        return torch.from_numpy(grid.to_steps(self.videos[index].segments)).float().reshape(-1, 2)

    def whole(self, index: int) -> Window:
        """A whole video, thinned or resampled as the run's parameters ask."""
        video, (steps, grid) = self.videos[index], self.placed(index)
        features = torch.from_numpy(self.store.read(video.name)).T[:, :: self.run.features.keep_every]
        if self.run.windows.resample:
            features = F.interpolate(features[None], size=steps, mode="linear", align_corners=False)[0]
        return Window(
            video=video.name,
            features=features,
            segments=self.segments(index, grid),
            labels=self.labels[index].long(),
            grid=grid,
            duration=video.duration,
        )


class TestWindows(_Windows):
    """Every video of the test split, whole."""

    __test__ = False  # a data set, not a test class, whatever pytest thinks of its name

    def __getitem__(self, index: int) -> Window:
        return self.whole(index)


class TrainingWindows(_Windows):
    """Windows of the training videos that have instances: random crops, which depend on seed, epoch and video alone, or
    with `windows.overlap` all of those that hold an instance."""

    def __init__(self, run: Run, videos: Sequence[Video], classes: Sequence[str], store: FeatureStore) -> None:
        annotated = [video for video in videos if len(video.segments)]
        super().__init__(run, annotated, classes, store)
        self.spans: list[tuple[int, Span | None]] = [(index, None) for index in range(len(annotated))]
        if run.windows.overlap is not None:
            self.spans = [(index, span) for index, _ in self.spans for span in self._with_instance(index)]
        if not self.spans:
            raise RdfaError(f"subset {run.train_subset!r} of {run.dataset} has no annotated instance to train on")

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, item: tuple[int, int]) -> Window:
        epoch, number = item
        index, span = self.spans[number]
        if span is None:
            return crop(self.whole(index), self.run, np.random.default_rng([self.run.seed, epoch, index]))
        return part(self.whole(index), span, self.run.windows.min_kept)

    def _with_instance(self, index: int) -> list[Span]:
        steps, grid = self.placed(index)
        segments, min_kept = self.segments(index, grid), self.run.windows.min_kept
        plan = passes(steps, self.run)
        return [each for each in plan if _cut(segments, each.start, each.stop - each.start, min_kept)[1].any()]


def passes(steps: int, run: Run) -> list[Span]:
    """What a detector sees of a video of `steps` steps, in order: all of it, or windows that overlap."""
    if run.windows.overlap is None:
        return [Span(0, steps, 0, steps)]
    return spans(steps, run.windows.max_length, run.windows.overlap, run.model.coarsest)


def part(window: Window, span: Span, min_kept: float) -> Window:
    """What a pass sees of a whole video, with the instances of which at least `min_kept` is inside."""
    length = span.stop - span.start
    if length == window.features.shape[1]:
        return window
    segments, inside = _cut(window.segments, span.start, length, min_kept)
    return _part(window, span.start, length, segments, inside)


def crop(window: Window, run: Run, generator: np.random.Generator) -> Window:
    """A random crop that holds at least one instance (ActionFormer's `truncate_feats`).

    Videos longer than `max_length` are cut to it; shorter ones to a share of their length drawn from `crop_ratio`.
    An instance counts if at least `min_kept` of it is inside; its segment is cut at the crop.
    """
    total, limits = window.features.shape[1], run.windows
    length = limits.max_length
    if total <= length:
        if limits.crop_ratio is None or limits.resample:
            return window
        low, high = (round(ratio * total) for ratio in limits.crop_ratio)
        length = int(generator.integers(max(low, 1), min(high, total) + 1))
    if length == total:
        return window
    for _ in range(_TRIALS):
        start = int(generator.integers(0, total - length + 1))
        segments, inside = _cut(window.segments, start, length, limits.min_kept)
        if inside.any():
            return _part(window, start, length, segments, inside)
    # An instance longer than the crop is never kept to `min_kept`: train on the crop without it.
    segments, inside = _cut(window.segments, start, length, limits.min_kept)
    return _part(window, start, length, segments, inside)


def _cut(segments: Tensor, start: int, length: int, min_kept: float) -> tuple[Tensor, Tensor]:
    """Segments (M, 2) cut at a crop, in its steps, and which of them keep enough of themselves, (M,) bool."""
    cut = segments.clamp(start, start + length)
    kept = (cut[:, 1] - cut[:, 0]) / (segments[:, 1] - segments[:, 0])
    return cut - start, (kept >= min_kept) & (cut[:, 1] > cut[:, 0])


def _part(window: Window, start: int, length: int, segments: Tensor, inside: Tensor) -> Window:
    return Window(
        video=window.video,
        features=window.features[:, start : start + length],
        segments=segments[inside],
        labels=window.labels[inside],
        grid=window.grid,
        duration=window.duration,
    )


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) in an order that depends on seed and epoch alone; an incomplete last batch is dropped
    unless it is the only one."""

    def __init__(self, run: Run, size: int, epoch: int) -> None:
        self.batch = min(run.training.batch_size, size)
        self.order = np.random.default_rng([run.seed, epoch]).permutation(size)
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.order) // self.batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for first in range(0, len(self) * self.batch, self.batch):
            yield [(self.epoch, int(index)) for index in self.order[first : first + self.batch]]


def collate(windows: list[Window], run: Run) -> Batch:
    """Pad windows to one length: a multiple of the coarsest stride, and at least what the run asks for. A share of a
    batch is thus padded as the batch would be, or with less of what reaches nothing."""
    coarsest = run.model.coarsest
    longest = max(run.least_length, *(window.features.shape[1] for window in windows))
    length = -(-longest // coarsest) * coarsest
    features = torch.zeros(len(windows), windows[0].features.shape[0], length)
    mask = torch.zeros(len(windows), length, dtype=torch.bool)
    for row, window in enumerate(windows):
        features[row, :, : window.features.shape[1]] = window.features
        mask[row, : window.features.shape[1]] = True
    return Batch(windows=windows, features=features, mask=mask)
