"""What a data set's lengths suggest for the detector: regression ranges and the length of a training window.

Rules of thumb of ours, which the four published configurations and HAPT's agree with, more or less; not tuned.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ranges = list[tuple[float, float]]

FINEST = 4.0
"""Distance in grid steps up to which the finest level predicts (ActionFormer's)."""
UNBOUNDED = 10_000.0
"""Upper end of the coarsest level's range: beyond every instance."""
MOST_LEVELS = 8
LONG = 0.99
"""Quantile of the instances' lengths that stands for the longest: a single outlier should not cost a level."""
MOST_VIDEOS = 0.9
"""Share of the training videos that fits into one window whole."""
LONGEST_WINDOW = 2304
"""Grid steps; the released code's for THUMOS-14, the longest of the published ones."""


def regression_ranges(instance_steps: Floats) -> Ranges:
    """Ranges that double from level to level, as many as the instances need.

    At its centre, an instance of n steps is n / 2 from either boundary. A level is of use if a long instance's half
    reaches its range.

    Args:
        instance_steps: (M,) lengths of the training instances in grid steps.
    """
    farthest = float(np.quantile(instance_steps, LONG)) / 2 if len(instance_steps) else 0.0
    levels = 1 + max(0, 1 + math.floor(math.log2(farthest / FINEST))) if farthest >= FINEST else 1
    lows = [0.0, *(FINEST * 2**level for level in range(min(levels, MOST_LEVELS) - 1))]
    return list(zip(lows, [*lows[1:], UNBOUNDED], strict=True))


def level_shares(instance_steps: Floats, ranges: Ranges) -> Floats:
    """Share of the instances whose half falls into each level's range, (L,)."""
    half = instance_steps / 2
    counts = [np.count_nonzero((low <= half) & (half < high)) for low, high in ranges]
    return np.array(counts, dtype=np.float64) / max(len(half), 1)


def window_length(video_steps: Floats, instance_steps: Floats, levels: int) -> int:
    """Length of a training window: a multiple of the coarsest level's stride into which most videos fit.

    Longer videos are cropped at random. No window is longer than `LONGEST_WINDOW`, unless instances need it: twice a
    long instance, so that its surroundings are seen too.

    Args:
        video_steps: lengths of the training videos, grid steps.
        instance_steps: lengths of their instances, grid steps.
        levels: of the pyramid.
    """
    coarsest = 2 ** (levels - 1)
    most = float(np.quantile(video_steps, MOST_VIDEOS)) if len(video_steps) else float(coarsest)
    needed = 2 * float(np.quantile(instance_steps, LONG)) if len(instance_steps) else 0.0
    length = min(most, max(LONGEST_WINDOW, needed))
    return int(max(1, math.ceil(length / coarsest)) * coarsest)
