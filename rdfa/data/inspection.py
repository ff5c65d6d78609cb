"""What is in a data set, and what is wrong with it, and where: the arithmetic of `rdfa check-data`.

In order of reading: `Inspection`, `inspect`; then the checks, on annotations, on videos, on features, on classes. An
error is what fetching or training would refuse or what makes results meaningless; a warning is what a person should
have looked at.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rdfa.data.annotations import CLOCK_TOLERANCE, Annotations, Video
from rdfa.data.features import DURATION_TOLERANCE, Attributes
from rdfa.data.suggestions import Ranges, level_shares, regression_ranges, window_length
from rdfa.data.windows import Grid
from rdfa.errors import RdfaError
from rdfa.schema import Run

Floats = NDArray[np.float64]

NAMED = 5
"""How many places a finding names before it only counts."""
IMBALANCE = 50
"""Ratio of the most to the least frequent class's training instances from which it is mentioned (ours)."""
FEW = 5
"""Training instances below which a class is mentioned (ours)."""
GRID_TOLERANCE = 0.05
"""Share by which the steps of a video may differ from what its duration asks for (ours): extractors pad or drop the
end, containers round; a wrong stride or frame rate is off by more."""
_RATES = 1e-3
"""Relative difference from which the reader refuses a frame rate or stride (rdfa.data.features)."""


class Readable(Protocol):
    """What is asked of features: the reading part of a feature store."""

    @property
    def videos(self) -> tuple[str, ...]: ...

    def shape(self, video: str) -> tuple[int, int]: ...

    def attributes(self, video: str) -> Attributes: ...

    def read(self, video: str) -> NDArray[np.float32]: ...


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of thing that is wrong, and all its places."""

    error: bool
    what: str
    places: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        named = "; ".join(self.places[:NAMED])
        more = f"; and {len(self.places) - NAMED} more" if len(self.places) > NAMED else ""
        return self.what + (f" ({len(self.places)}): {named}{more}" if self.places else "")


@dataclass(frozen=True, kw_only=True, eq=False)
class Inspection:
    """A data set in numbers. Lengths are those of all annotated videos, suggestions those of the training subset."""

    name: str
    findings: tuple[Finding, ...]
    subsets: dict[str, tuple[int, int, float]]
    """Subset → videos, instances, seconds."""
    classes: dict[str, dict[str, int]]
    """Class → subset → instances."""
    video_seconds: Floats
    instance_seconds: Floats
    instance_steps: Floats
    """Of the instances that are segments, grid steps, training subset."""
    steps: Floats
    """(V, 2): grid steps that the duration asks for, and those that the features have; videos with features."""
    ranges: Ranges
    shares: Floats
    """Share of the training instances at each level of `ranges`."""
    max_length: int

    @property
    def errors(self) -> int:
        """Kinds of errors."""
        return sum(finding.error for finding in self.findings)


def inspect(run: Run, annotations: Annotations, features: Readable, name: str) -> Inspection:
    """Look at everything, and go on after whatever is wrong. Reads all features once.

    Args:
        annotations: read with `faulty="keep"`.
        features: a feature store, or a user's own files.
        name: of the data set, for headings.
    """
    known = set(features.videos)
    present = [video for video in annotations.videos if video.name in known]
    train = [video for video in annotations.videos if video.subset == run.train_subset]
    lengths, instances = _steps(run, train)
    ranges = regression_ranges(instances)
    steps, of_time = _check_time(run, present, features)
    findings = [
        *_check_names(annotations, known),
        *_check_segments(annotations.videos),
        *_check_subsets(run, annotations),
        *_check_classes(run, annotations),
        *of_time,
        *_check_values(run, present, features),
        *_check_resolution(run, instances),
    ]
    spans = [video.segments[:, 1] - video.segments[:, 0] for video in annotations.videos]
    return Inspection(
        name=name,
        findings=tuple(sorted((found for found in findings if found), key=lambda found: not found.error)),
        subsets=_subsets(annotations),
        classes=_classes(annotations),
        video_seconds=np.array([video.duration for video in annotations.videos]),
        instance_seconds=np.concatenate([np.zeros(0), *spans]),
        instance_steps=instances,
        steps=steps,
        ranges=ranges,
        shares=level_shares(instances, ranges),
        max_length=window_length(lengths, instances, len(ranges)),
    )


def _steps(run: Run, videos: Sequence[Video]) -> tuple[Floats, Floats]:
    """Lengths of videos and of their (not reversed) instances, as grid steps that the detector sees."""
    of_videos, of_instances = [], [np.zeros(0)]
    for video in videos:
        rate = run.features.fps or video.fps
        spans = video.segments[:, 1] - video.segments[:, 0]
        if run.windows.resample:
            of_videos.append(float(run.windows.max_length))
            of_instances.append(spans[spans > 0] / video.duration * run.windows.max_length)
        elif rate:
            of_videos.append(_asked(_grid(run, rate), video.duration) / run.features.keep_every)
            of_instances.append(spans[spans > 0] * rate / (run.features.stride * run.features.keep_every))
    return np.array(of_videos), np.concatenate(of_instances)


def _grid(run: Run, rate: float) -> Grid:
    return Grid(stride=run.features.stride, window=run.features.window, fps=rate)


def _asked(grid: Grid, seconds: float) -> float:
    """Steps of a video of that length if only windows that fit are taken."""
    return max((seconds * grid.fps - grid.window) / grid.stride + 1, 1.0)


def _subsets(annotations: Annotations) -> dict[str, tuple[int, int, float]]:
    found = {}
    for subset in annotations.subsets:
        videos = annotations.subset(subset).videos
        instances = sum(len(video.labels) for video in videos)
        found[subset] = (len(videos), instances, sum(video.duration for video in videos))
    return found


def _classes(annotations: Annotations) -> dict[str, dict[str, int]]:
    counts = Counter((label, video.subset) for video in annotations.videos for label in video.labels)
    return {name: {subset: counts[name, subset] for subset in annotations.subsets} for name in annotations.classes}


def _found(error: bool, what: str, places: Iterable[str]) -> Iterator[Finding]:
    listed = tuple(places)
    if listed:
        yield Finding(error=error, what=what, places=listed)


def _check_names(annotations: Annotations, known: set[str]) -> Iterator[Finding]:
    annotated = set(annotations.by_name)
    yield from _found(True, "videos without features", sorted(annotated - known))
    unfit = sorted(name for name in annotated | set(annotations.subsets) if "/" in name or name in ("", "."))
    yield from _found(True, "names that the feature store cannot hold (empty, '.' or with '/')", unfit)
    yield from _found(False, "features without annotations, unused", sorted(known - annotated))


def _check_segments(videos: Sequence[Video]) -> Iterator[Finding]:
    reversed_, outside, clipped, twice, crossing, bare = [], [], [], [], [], []
    for video in videos:
        if not video.labels:
            bare.append(video.name)
        seen: dict[tuple[float, float, str], int] = {}
        for index, ((start, end), label) in enumerate(zip(video.segments.tolist(), video.labels, strict=True)):
            place = f"{video.name} #{index} {label} [{start:g}, {end:g}]"
            beyond = max(-start, end - video.duration)
            if start >= end:
                reversed_.append(place)
            elif beyond > CLOCK_TOLERANCE or start >= video.duration or end <= 0:
                outside.append(f"{place} of {video.duration:g} s")
            elif beyond > 0:
                clipped.append(f"{place} of {video.duration:g} s")
            first = seen.setdefault((start, end, label), index)
            if first != index:
                twice.append(f"{place} as #{first}")
        crossing += _same_class_overlaps(video)
    yield from _found(True, "segments that start at or after their end", reversed_)
    yield from _found(True, "segments outside their video", outside)
    yield from _found(False, f"segments up to {CLOCK_TOLERANCE} s outside their video, which are clipped", clipped)
    yield from _found(False, "annotations given twice", twice)
    yield from _found(False, "instances that overlap another one of their class", crossing)
    yield from _found(False, "videos without any instance (not trained on; only false alarms in the test)", bare)


def _same_class_overlaps(video: Video) -> list[str]:
    """Places where an instance begins inside another one of its class, unless it is the same."""
    places = []
    for label in sorted(set(video.labels)):
        own = video.segments[[name == label for name in video.labels]]
        own = np.unique(own[own[:, 0] < own[:, 1]], axis=0)
        reach = np.maximum.accumulate(own[:, 1])
        for row in np.flatnonzero(own[1:, 0] < reach[:-1] - 1e-6).tolist():
            places.append(f"{video.name} {label} [{own[row + 1, 0]:g}, {own[row + 1, 1]:g}]")
    return places


def _check_subsets(run: Run, annotations: Annotations) -> Iterator[Finding]:
    for role, name in (("train_subset", run.train_subset), ("test_subset", run.test_subset)):
        if name not in annotations.subsets:
            there = ", ".join(annotations.subsets)
            yield Finding(error=True, what=f"no video is in the subset {name!r} ({role}); there are: {there}")
        elif not any(video.labels for video in annotations.subset(name).videos):
            yield Finding(error=True, what=f"the subset {name!r} ({role}) has no instance")
    if run.train_subset == run.test_subset:
        yield Finding(error=False, what=f"train_subset and test_subset are both {run.train_subset!r}")
    others = sorted(set(annotations.subsets) - {run.train_subset, run.test_subset})
    yield from _found(False, "subsets that are not used", others)


def _check_classes(run: Run, annotations: Annotations) -> Iterator[Finding]:
    if len(annotations.classes) != run.num_classes:
        yield Finding(
            error=True, what=f"{len(annotations.classes)} classes, the parameters (num_classes) say {run.num_classes}"
        )
    counts = {
        name: (of_subset.get(run.train_subset, 0), of_subset.get(run.test_subset, 0))
        for name, of_subset in _classes(annotations).items()
    }
    untrained = [name for name, (train, test) in counts.items() if test and not train]
    yield from _found(False, f"classes in {run.test_subset!r} only, which cannot be learnt", untrained)
    untested = [name for name, (train, test) in counts.items() if train and not test]
    yield from _found(False, f"classes in {run.train_subset!r} only, on which nothing is measured", untested)
    empty = [name for name, pair in counts.items() if pair == (0, 0)]
    yield from _found(False, "classes without any instance in the two subsets", empty)
    trained = {name: train for name, (train, _) in counts.items() if train}
    rare = [f"{name} has {train}" for name, train in trained.items() if train < FEW]
    yield from _found(False, f"classes with fewer than {FEW} training instances", rare)
    if trained and max(trained.values()) > IMBALANCE * min(trained.values()):
        most, least = max(trained, key=lambda name: trained[name]), min(trained, key=lambda name: trained[name])
        yield Finding(
            error=False,
            what=f"classes are unbalanced: {trained[most]} training instances of {most}, {trained[least]} of {least}",
        )


def _check_time(run: Run, videos: Sequence[Video], features: Readable) -> tuple[Floats, list[Finding]]:
    """Whether features and annotations mean the same by time: steps asked for and found (V, 2), and findings."""
    pairs, other, durations, off, late = [], [], [], [], []
    for video in videos:
        try:
            about, (found, _) = features.attributes(video.name), features.shape(video.name)
        except RdfaError:
            continue  # _check_values says so
        rate = run.features.fps or video.fps or about.fps
        asked_of = (("stride", about.stride, run.features.stride), ("window", about.window, run.features.window))
        for what, told, asked in (*asked_of, ("fps", about.fps, rate)):
            if abs(told - asked) > _RATES * asked:
                other.append(f"{video.name} has {what} {told:g}, parameters or annotations say {asked:g}")
        if abs(about.duration - video.duration) > DURATION_TOLERANCE:
            durations.append(f"{video.name}: features of {about.duration:g} s, annotations of {video.duration:g} s")
        grid = _grid(run, rate)
        asked_steps = _asked(grid, video.duration)
        pairs.append((asked_steps, found))
        allowed = grid.window / grid.stride + DURATION_TOLERANCE * rate / grid.stride + GRID_TOLERANCE * asked_steps
        if abs(found - asked_steps) > allowed:
            off.append(f"{video.name}: {found} steps, {video.duration:g} s are {asked_steps:.0f}")
        last = float(grid.to_seconds(np.array(found - 1.0))) + grid.window / grid.fps / 2
        late += [
            f"{video.name} {label} [{start:g}, {end:g}], features end at {last:.1f} s"
            for (start, end), label in zip(video.segments.tolist(), video.labels, strict=True)
            if start >= last and start < video.duration
        ]
    most = len(off) > len(videos) / 2
    hint = ": is the stride, the window or fps wrong?" if most else ""
    return np.array(pairs, dtype=np.float64).reshape(-1, 2), [
        *_found(True, "features of another stride, window or fps", other),
        *_found(True, f"durations that differ by more than {DURATION_TOLERANCE:g} s", durations),
        *_found(most, f"features that are longer or shorter than their video{hint}", off),
        *_found(False, "instances after the end of the features, which cannot be found", late),
    ]


def _check_values(run: Run, videos: Sequence[Video], features: Readable) -> Iterator[Finding]:
    """Whether features can be read, are finite and change."""
    unreadable, width, still = [], [], []
    low = high = None
    for video in videos:
        try:
            values = features.read(video.name)
        except RdfaError as error:
            unreadable.append(" ".join(str(error).split()))
            continue
        if not values.size:
            unreadable.append(f"{video.name}: empty, shape {values.shape}")
            continue
        if values.shape[1] != run.features.dimension:
            width.append(f"{video.name} has {values.shape[1]}")
            continue
        least, most = values.min(axis=0), values.max(axis=0)
        if len(values) > 1 and (least == most).all():
            still.append(video.name)
        low = least if low is None else np.minimum(low, least)
        high = most if high is None else np.maximum(high, most)
    dead = [] if low is None or high is None else np.flatnonzero(low == high).tolist()
    yield from _found(True, "features that cannot be used", unreadable)
    yield from _found(True, f"features without the {run.features.dimension} channels of features.dimension", width)
    yield from _found(False, "features that do not change over the whole video", still)
    yield from _found(False, "channels that have one value in all videos", map(str, dead))


def _check_resolution(run: Run, instances: Floats) -> Iterator[Finding]:
    short = int((instances < 1).sum())
    if short:
        yield Finding(
            error=False, what=f"{short} of {len(instances)} training instances are shorter than one grid step"
        )
    long = int((instances > run.windows.max_length).sum())
    if long and not run.windows.resample:
        yield Finding(
            error=False,
            what=f"{long} of {len(instances)} training instances are longer than a window of windows.max_length "
            f"{run.windows.max_length}",
        )
