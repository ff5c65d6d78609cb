"""What the classes and the cues of the sample source look like."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rdfa.schema import Sample

Single = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """Directions in feature space, about 1 in size on each channel unless said otherwise; K classes, C channels."""

    phases: Single
    """(K, 2, C): onset and completion of each class."""
    textures: Single
    """(K, C), of size `rhythm.size`: what alternates in an action of a rhythmic class."""
    periods: NDArray[np.float64]
    """(K,): steps of a texture's period; 0 where the class has none."""
    cues: Single
    """(2, 2, C), of size `context.size`: [counts for what precedes, says that actions and no decoys are there]."""
    cued_after: NDArray[np.bool_]
    """(K,): in videos of this class cues count for what precedes them."""

    @classmethod
    def draw(cls, rng: Generator, sample: Sample, classes: int, channels: int) -> "Appearance":
        """Mix directions that all classes share, that sisters (2j, 2j + 1) share and that a class has alone.

        A direction is a vector of signs, its size is 1 on each channel; the shares are of squared size.
        """
        common = _signs(rng, (2, channels))
        pairs, own = _signs(rng, ((classes + 1) // 2, 2, channels)), _signs(rng, (classes, 2, channels))
        kind = rng.random(len(pairs))
        ordered = kind < sample.ordered
        rhythmic = ~ordered & (kind < sample.ordered + sample.rhythm.share)
        every, rest = math.sqrt(sample.actionness), math.sqrt(1 - sample.actionness)
        alike, alone = math.sqrt(sample.confusable), math.sqrt(1 - sample.confusable)
        phases = np.empty((classes, 2, channels), np.float32)
        for label in range(classes):
            pair, second = divmod(label, 2)
            if ordered[pair]:  # the sister has the phases in the other order, and nothing else tells them apart
                both = np.float32(math.sqrt(0.5)) * (common[0] + common[1])
                phases[label] = every * both + rest * pairs[pair, :: -1 if second else 1]
            elif rhythmic[pair]:  # the sister has the same phases and, below, the same texture of another period
                phases[label] = every * common + rest * pairs[pair]
            else:
                phases[label] = every * common + rest * (alike * pairs[pair] + alone * own[label])
        textures, periods = _rhythms(rng, sample, classes, channels, rhythmic)
        cues = np.float32(sample.context.size) * _signs(rng, (2, 2, channels))
        cued_after = rng.permutation(classes) < round(sample.context.following * classes)
        return cls(phases=phases, textures=textures, periods=periods, cues=cues, cued_after=cued_after)


def _rhythms(
    rng: Generator, sample: Sample, classes: int, channels: int, rhythmic: NDArray[np.bool_]
) -> tuple[Single, NDArray[np.float64]]:
    """Textures and periods of all classes; of two sisters, the second has twice the period."""
    drawn = np.float32(sample.rhythm.size) * _signs(rng, (len(rhythmic), channels))
    shorter = np.array(sample.rhythm.periods)[rng.integers(len(sample.rhythm.periods), size=len(rhythmic))]
    pair, second = np.divmod(np.arange(classes), 2)
    textures = np.where(rhythmic[pair, None], drawn[pair], np.float32(0))
    return textures, np.where(rhythmic[pair], shorter[pair] * (1 + second), 0.0)


def _signs(rng: Generator, shape: tuple[int, ...]) -> Single:
    return (2 * rng.integers(2, size=shape) - 1).astype(np.float32)
