"""Draws annotations with the shape of a real data set: the first half of the sample source.

In order of reading: `Instance` and `Plan` (one video), `class_weights`, `draw_plans` (one split), then how instances
get their durations, their overlaps, their classes and their places.

Quantile tables are drawn from by stratified sampling: n draws fall one into each of n equal parts of the table, so
that even sixty videos have the durations and counts that were asked for.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rdfa.schema import Sample, Statistics

SHORTEST = 0.1
"""Seconds of the shortest instance; real annotations go down to 0, where nothing could be planted."""
FULL = 0.9
"""Share of a video that instances given in seconds may fill together, so that background remains."""
OVERLAP = (0.3, 1.0)
"""Two overlapping instances share this part of the shorter one, drawn uniformly."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One planted action: seconds, and the index of its class."""

    start: float
    end: float
    label: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One video to be planted."""

    name: str
    duration: float
    """Seconds."""
    instances: tuple[Instance, ...] = field(default=())

    @property
    def labels(self) -> tuple[int, ...]:
        """Its classes, the most frequent first."""
        found = [instance.label for instance in self.instances]
        return tuple(sorted(set(found), key=lambda label: (-found.count(label), label)))


def class_weights(rng: Generator, statistics: Statistics, classes: int) -> Floats:
    """How often each class occurs, (K,), sums to 1; the long tail is dealt to the classes at random."""
    tail = _quantile(statistics.class_weights, np.linspace(0, 1, classes))
    tail = np.maximum(tail, 1e-3 * tail[-1])
    return np.asarray(rng.permutation(tail) / tail.sum())


def draw_plans(
    rng: Generator, statistics: Statistics, sample: Sample, names: list[str], weights: Floats, shortest_video: float
) -> list[Plan]:
    """Draw the videos of one split.

    Args:
        names: the videos' names.
        weights: (K,) relative frequency of the classes; 0 leaves a class out.
        shortest_video: seconds; shorter draws are lengthened to it.
    """
    count = len(names)
    durations = np.maximum(np.round(_draw(rng, statistics.video_seconds, count), 2), shortest_video)
    numbers = np.clip(np.rint(_draw(rng, statistics.instances_per_video, count)), 1, sample.max_instances).astype(int)
    numbers = _deal_numbers(rng, statistics, durations, numbers)
    lengths = _deal_lengths(rng, statistics, durations, numbers)
    labels = _deal_labels(rng, statistics, numbers, weights)
    paired = _choose_pairs(rng, statistics.overlapping, labels)
    plans = []
    for i, name in enumerate(names):
        instances = _place(rng, float(durations[i]), lengths[i], labels[i], paired[i])
        plans.append(Plan(name=name, duration=float(durations[i]), instances=tuple(instances)))
    return plans


def _quantile(table: tuple[float, ...], at: Floats) -> Floats:
    return np.asarray(np.interp(at, np.linspace(0, 1, len(table)), np.array(table)))


def _draw(rng: Generator, table: tuple[float, ...], count: int) -> Floats:
    """`count` stratified draws from a quantile table, in random order."""
    return _quantile(table, (rng.permutation(count) + rng.random(count)) / max(count, 1))


def _deal_numbers(rng: Generator, statistics: Statistics, durations: Floats, numbers: Ints) -> Ints:
    """Give each video a number of instances that it has room for, largest numbers first, otherwise at random.

    Coverage needs no such care: a share of a short video is short.
    """
    if statistics.instance_seconds is None:
        return numbers
    average = float(_quantile(statistics.instance_seconds, np.linspace(0, 1, 101)).mean())
    dealt = np.zeros_like(numbers)
    for number in np.sort(numbers)[::-1]:
        free = np.flatnonzero(dealt == 0)
        fits = free[FULL * durations[free] >= number * average]
        dealt[fits[rng.integers(len(fits))] if len(fits) else free[np.argmax(durations[free])]] = number
    return dealt


def _deal_lengths(rng: Generator, statistics: Statistics, durations: Floats, numbers: Ints) -> list[list[float]]:
    """Durations in seconds for each video's instances.

    They are drawn for all videos together and dealt out longest first, each to a random video that keeps enough room
    for average ones in its other places: videos and instances both keep their own statistics, and long videos get the
    long or the many instances.
    """
    relative = statistics.instance_coverage is not None
    table = statistics.instance_coverage or statistics.instance_seconds
    assert table is not None, "schema.Statistics has exactly one of the two"
    unit = durations if relative else np.ones_like(durations)  # seconds of a length of 1
    left = numbers.copy()
    room = np.where(relative, durations, FULL * durations)
    dealt: list[list[float]] = [[] for _ in durations]
    drawn = np.sort(_draw(rng, table, int(numbers.sum())))
    average = np.cumsum(drawn) / np.arange(1, len(drawn) + 1)  # of the shortest ones, up to and including each
    for rank in range(len(drawn) - 1, -1, -1):
        seconds = np.maximum(drawn[rank] * unit, SHORTEST)
        others = np.maximum(average[rank] * unit, SHORTEST) * (left - 1)
        fits = (left > 0) & (seconds + others <= room)
        if fits.any():
            chances = np.cumsum(np.where(fits, left, 0))
            video = int(np.searchsorted(chances, rng.integers(chances[-1]), side="right"))
        else:
            video = int(np.argmax(np.where(left > 0, room - others, -np.inf)))
        given = float(min(seconds[video], max(room[video] - SHORTEST * (left[video] - 1), SHORTEST)))
        dealt[video].append(given)
        room[video] -= given
        left[video] -= 1
    return [[lengths[i] for i in rng.permutation(len(lengths))] for lengths in dealt]


def _deal_labels(rng: Generator, statistics: Statistics, numbers: Ints, weights: Floats) -> list[list[int]]:
    """Classes of each video's instances: a main one, and as many different ones as asked for."""
    main = _deal_main_classes(rng, numbers, weights)
    different = np.rint(_draw(rng, statistics.classes_per_video, len(numbers))).astype(int)
    different = _deal_varieties(rng, different, numbers)
    dealt = []
    for first, number, wanted in zip(main, numbers, different, strict=True):
        classes = [int(first)]
        others = weights.copy()
        while len(classes) < min(wanted, number):
            others[classes] = 0
            if not others.any():
                break
            chances = np.cumsum(others)
            classes.append(int(np.searchsorted(chances, rng.random() * chances[-1], side="right")))
        labels = classes + [classes[i] for i in rng.integers(len(classes), size=int(number) - len(classes))]
        dealt.append([labels[i] for i in rng.permutation(len(labels))])
    return dealt


def _deal_main_classes(rng: Generator, numbers: Ints, weights: Floats) -> Ints:
    """One class for each video: all classes in about as many videos, the frequent ones in those of many instances.

    So it is in the real data, where the tail is in the instances and hardly in the videos; and so no class is lost
    because a sample is small.
    """
    classes = np.flatnonzero(weights)
    videos_each, rest = divmod(len(numbers), len(classes))
    left = np.zeros(len(weights), dtype=int)
    left[classes] = videos_each
    left[rng.choice(classes, rest, replace=False, p=weights[classes] / weights[classes].sum())] += 1
    missing = weights / weights.sum() * numbers.sum()  # instances that each class should still get
    main = np.zeros_like(numbers)
    order = rng.permutation(len(numbers))
    for video in order[np.argsort(-numbers[order], kind="stable")]:
        label = int(np.argmax(np.where(left > 0, missing, -np.inf)))
        main[video] = label
        missing[label] -= numbers[video]
        left[label] -= 1
    return main


def _deal_varieties(rng: Generator, varieties: Ints, numbers: Ints) -> Ints:
    """Give each video a number of different classes, at most its number of instances where that can be."""
    dealt = np.zeros_like(numbers)
    for variety in np.sort(varieties)[::-1]:
        free = np.flatnonzero(dealt == 0)
        fits = free[numbers[free] >= variety]
        dealt[fits[rng.integers(len(fits))] if len(fits) else free[np.argmax(numbers[free])]] = variety
    return dealt


def _choose_pairs(rng: Generator, overlapping: float, labels: list[list[int]]) -> list[set[int]]:
    """For each video, the positions whose instance overlaps the one before; videos of several classes first."""
    wanted = round(overlapping * sum(map(len, labels)) / 2)
    places = [(video, place) for video, found in enumerate(labels) for place in range(1, len(found))]
    places = [places[i] for i in rng.permutation(len(places))]
    places.sort(key=lambda at: labels[at[0]][at[1]] == labels[at[0]][at[1] - 1])  # stable: different classes first
    paired: list[set[int]] = [set() for _ in labels]
    for video, place in places:
        if wanted == 0:
            break
        if not {place - 1, place, place + 1} & paired[video]:
            paired[video].add(place)
            wanted -= 1
    return paired


def _place(
    rng: Generator, duration: float, lengths: list[float], labels: list[int], paired: set[int]
) -> list[Instance]:
    """Put the instances into the video in their order, with random gaps between them."""
    offsets: list[tuple[int, float]] = []  # each instance's cluster, and where in it the instance starts
    clusters: list[float] = []  # lengths of what is placed as one: an instance, or some that overlap
    for place, length in enumerate(lengths):
        if place in paired:
            shared = rng.uniform(*OVERLAP) * min(lengths[place - 1], length)
            offset = lengths[place - 1] - shared
            clusters[-1] = max(clusters[-1], offset + length)
        else:
            offset = 0.0
            clusters.append(length)
        offsets.append((len(clusters) - 1, offset))
    gaps = np.sort(rng.uniform(0, max(duration - sum(clusters), 0), len(clusters)))
    starts = gaps + np.concatenate([[0.0], np.cumsum(clusters)[:-1]])
    instances = []
    for (cluster, offset), length, label in zip(offsets, lengths, labels, strict=True):
        start = min(starts[cluster] + offset, duration - SHORTEST)
        end = min(start + length, duration)
        start = min(round(start, 2), round(end - SHORTEST, 2))  # hundredths of a second, as annotators give
        instances.append(Instance(start=max(start, 0.0), end=round(end, 2), label=label))
    return sorted(instances, key=lambda instance: (instance.start, instance.end, instance.label))
