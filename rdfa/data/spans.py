"""How a video that is longer than one pass of the detector is cut: overlapping passes, each with a core of its own."""

from typing import NamedTuple

from rdfa.errors import RdfaError

OVERLAP = 0.5
"""Share of a pass that the next one sees too, unless told otherwise: every core then has a quarter of a pass around it.
docs/using-a-model.md says what other shares cost and give."""


class Span(NamedTuple):
    """One pass, in steps of the video."""

    start: int
    """First step that the detector sees."""
    stop: int
    """Step after the last one that it sees."""
    core_start: int
    """First step whose predictions are taken from this pass."""
    core_stop: int


def spans(total: int, length: int, overlap: float, coarsest: int) -> list[Span]:
    """Passes over `total` steps; their cores are disjoint and together cover the video.

    Passes start, and cores meet, at multiples of the coarsest pyramid stride: the points of all passes are then points
    of the whole video's pyramid, and each point is taken from exactly one pass, the one that sees most around it.

    Args:
        length: steps of a pass, a multiple of `coarsest`.
        overlap: share of a pass that the next one sees too, 0 <= overlap < 1.

    Raises:
        RdfaError: `length` or `overlap` that cannot be.
    """
    if length <= 0 or length % coarsest:
        raise RdfaError(f"{length} steps per pass: must be a positive multiple of the coarsest stride {coarsest}")
    if not 0 <= overlap < 1:
        raise RdfaError(f"overlap {overlap:g}: must be at least 0 and below 1")
    if total <= length:
        return [Span(0, total, 0, total)]
    margin = round(overlap * length / 2 / coarsest) * coarsest
    hop = max(length - 2 * margin, coarsest)
    last = -(-(total - length) // coarsest) * coarsest
    starts = [*range(0, last, hop), last]
    stops = [min(start + length, total) for start in starts]
    # Neighbours meet in the middle of what both see.
    meets = [(later + stop) // 2 // coarsest * coarsest for later, stop in zip(starts[1:], stops, strict=False)]
    return [Span(*parts) for parts in zip(starts, stops, [0, *meets], [*meets, total], strict=True)]
