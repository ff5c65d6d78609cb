"""What happens in a video of the sample source, and when: actions, decoys with their cues, distractors.

In order of reading: `Event`; `draw_events`, all of a video; then decoys and cues, textures, distractors.

Decoys look like whole actions. What tells them from actions are cues, which lie outside of both. A cue counts for all
that follows it up to the next cue, whatever lies between; where no cue precedes, there are actions. In videos whose
main class is `cued_after`, the same is laid out on a clock that runs backwards.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.random import Generator

from rdfa.data.sources.sample_annotations import Instance, Plan
from rdfa.data.sources.sample_appearance import Appearance, Single
from rdfa.schema import Sample

SPLIT_AT = (0.4, 0.6)
"""The onset takes this part of an action, drawn uniformly."""
SAME_CLASS = 0.5
"""How often a distractor is the onset of a class of the same video; otherwise of any class."""
SPARE_CUES = 0.5
"""How often a cue of actions is planted where none is needed, so that kinds of cues need not alternate."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happens in a video: consecutive phases, each its end in seconds and a direction (C,)."""

    kind: Literal["action", "texture", "decoy", "cue", "distractor"]
    start: float
    phases: tuple[tuple[float, Single], ...]
    tells: bool | None = None
    """Of a cue: whether what it counts for are actions."""
    like: Instance | None = None
    """Of an action, the instance; of a decoy, the one whose class and duration it has."""

    @property
    def end(self) -> float:
        return self.phases[-1][0]


@dataclass
class _Gap:
    """Background, on the clock on which cues come first; seconds."""

    start: float
    end: float
    before: Instance | None
    """The action that ends the gap; None at the end of the video."""
    decoys: list[Instance] = field(default_factory=list)
    """What is imitated here, in order."""


@dataclass
class _Block:
    """A cue or a decoy in a gap."""

    what: Instance | bool
    """What a decoy imitates, or what a cue tells."""
    length: float
    distance: float
    """Seconds that stay free of decoys and cues afterwards."""


def draw_events(
    rng: Generator, context: Generator, plan: Plan, appearance: Appearance, sample: Sample, step: float
) -> list[Event]:
    """Everything that is planted in a video, actions first.

    Args:
        rng: draws actions and distractors.
        context: draws the rest, so that leaving it out changes nothing else.
        step: seconds between two feature vectors.
    """
    events = [_look(rng, "action", appearance, each, each.start) for each in plan.instances]
    extra = list(_decoys_and_cues(context, plan, appearance, sample, step))
    textures = list(_textures(context, [*events, *extra], appearance, step))
    taken = [*events, *extra]
    wanted = int(sample.distractors * len(plan.instances) + rng.random())
    for _ in range(wanted):
        like = plan.instances[int(rng.integers(len(plan.instances)))]
        label = like.label if rng.random() < SAME_CLASS else int(rng.integers(len(appearance.phases)))
        length = rng.uniform(*SPLIT_AT) * (like.end - like.start)
        place = _free_place(rng, taken, plan.duration, length)
        if place is not None:
            onset = appearance.phases[label][0]
            taken.append(Event(kind="distractor", start=place, phases=((place + length, onset),)))
    return [*events, *taken[len(events) + len(extra) :], *extra, *textures]


def _look(
    rng: Generator, kind: Literal["action", "decoy"], appearance: Appearance, like: Instance, start: float
) -> Event:
    """An event that looks like the instance `like`, from `start` on."""
    length = like.end - like.start
    middle = start + rng.uniform(*SPLIT_AT) * length
    onset, completion = appearance.phases[like.label]
    end = like.end if start == like.start else start + length
    return Event(kind=kind, start=start, phases=((middle, onset), (end, completion)), like=like)


def _decoys_and_cues(
    rng: Generator, plan: Plan, appearance: Appearance, sample: Sample, step: float
) -> Iterator[Event]:
    """Decoys wherever the background has room for them and for the cues that they need."""
    if sample.context.decoys == 0:
        return
    after = bool(appearance.cued_after[plan.labels[0]])
    apart, length = sample.context.distance[0] * step, sample.context.steps * step
    gaps = _gaps(plan, after, apart)
    for _ in range(int(sample.context.decoys * len(plan.instances) + rng.random())):
        like = plan.instances[int(rng.integers(len(plan.instances)))]
        room = [max(0.0, _loose(gap, _blocks(gap, [*gap.decoys, like], apart, length))) for gap in gaps]
        at = rng.random() * math.fsum(room)
        for gap, each in zip(gaps, room, strict=True):
            if at < each:
                gap.decoys.append(like)
                break
            at -= each
    for gap in gaps:
        for block, begin in _layout(rng, gap, sample, step):
            start = plan.duration - begin - block.length if after else begin
            if isinstance(block.what, Instance):
                yield _look(rng, "decoy", appearance, block.what, start)
            else:
                direction = appearance.cues[int(after), int(block.what)]
                yield Event(kind="cue", start=start, phases=((start + length, direction),), tells=block.what)


def _gaps(plan: Plan, after: bool, apart: float) -> list[_Gap]:
    """The background between the actions, without what is so close after one that a cue there would tell about it."""
    spans = [
        (plan.duration - each.end, plan.duration - each.start, each) if after else (each.start, each.end, each)
        for each in plan.instances
    ]
    gaps, before = [], 0.0
    for start, end, instance in sorted(spans, key=lambda span: span[:2]):
        gaps.append(_Gap(before, start, instance))
        before = max(before, end + apart)
    return [*gaps, _Gap(before, plan.duration, None)]


def _blocks(gap: _Gap, decoys: Sequence[Instance], apart: float, length: float) -> list[_Block]:
    """What stands in a gap with these decoys, in order, each as close to the next as it may be."""
    blocks = []
    if decoys:
        blocks.append(_Block(False, length, max(apart, decoys[0].end - decoys[0].start)))
        blocks += [_Block(each, each.end - each.start, apart) for each in decoys]
    if gap.before is not None:
        blocks.append(_Block(True, length, max(apart, gap.before.end - gap.before.start)))
    return blocks


def _loose(gap: _Gap, blocks: Sequence[_Block]) -> float:
    """Seconds that a gap has left beside these blocks; less than 0: they have no room."""
    return gap.end - gap.start - math.fsum(block.length + block.distance for block in blocks)


def _layout(rng: Generator, gap: _Gap, sample: Sample, step: float) -> list[tuple[_Block, float]]:
    """A gap's blocks and where they begin: cues as far ahead as drawn, what is left spread over the other places."""
    low, high = sample.context.distance
    blocks = _blocks(gap, gap.decoys, low * step, sample.context.steps * step)
    slack = _loose(gap, blocks)
    if slack < 0 or not blocks or (not gap.decoys and rng.random() >= SPARE_CUES):
        return []
    for block in blocks:
        if isinstance(block.what, bool):
            drawn = round(low * (high / low) ** rng.random(), 2) * step
            more = min(max(drawn - block.distance, 0.0), slack)
            block.distance += more
            slack -= more
    movable = [True] + [not isinstance(block.what, bool) for block in blocks[:-1]]
    cuts = np.sort(rng.uniform(0, slack, sum(movable) - (gap.before is not None)))
    shares = iter(np.diff(cuts, prepend=0.0, append=slack))
    places, at = [], gap.start
    for block, moves in zip(blocks, movable, strict=True):
        at += float(next(shares)) if moves else 0.0
        places.append((block, at))
        at += block.length + block.distance
    return places


def _textures(rng: Generator, events: Sequence[Event], appearance: Appearance, step: float) -> Iterator[Event]:
    """The textures of actions and decoys of rhythmic classes: their sign alternates, from a random phase on."""
    for event in events:
        if event.like is None or not appearance.periods[event.like.label]:
            continue
        texture, half = appearance.textures[event.like.label], float(appearance.periods[event.like.label]) * step / 2
        begin = event.start - 2 * half * rng.random()
        count = math.ceil((event.end - begin) / half)
        ends = [(min(begin + half * (number + 1), event.end), (-1) ** number) for number in range(count)]
        phases = tuple((end, np.float32(sign) * texture) for end, sign in ends if end > event.start)
        yield Event(kind="texture", start=event.start, phases=phases)


def _free_place(rng: Generator, events: Sequence[Event], duration: float, length: float) -> float | None:
    """A start for an event of `length` seconds that touches no other one, uniform over all such; None if none."""
    starts, before = [], 0.0
    for event in sorted(events, key=lambda each: each.start):
        starts.append((before, event.start - length - before))
        before = max(before, event.end)
    starts.append((before, duration - length - before))
    slack = [max(room, 0.0) for _, room in starts]
    at = rng.random() * math.fsum(slack)
    for (begin, _), room in zip(starts, slack, strict=True):
        if at < room:
            return begin + at
        at -= room
    return None
