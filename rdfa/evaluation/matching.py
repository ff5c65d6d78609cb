"""Which detection goes with which ground-truth segment, for whole data sets at once.

Both protocols are greedy: one side chooses in turn, each taking the best partner that is still free. Done in
turn that is a Python loop over half a million detections. But the outcome is also the only stable matching in
which every partner prefers the earlier chooser, and deferred acceptance (Gale & Shapley 1962) finds it in a few
rounds of array operations: all choosers propose to their favourite, each favourite keeps the earliest, the others
go on to their next.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAIRS_AT_ONCE = 1 << 20
"""Bounds the memory for overlaps that are computed only to be found too small."""

Overlap = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]


def overlapping_pairs(
    detection_keys: NDArray[np.int64],
    detections: NDArray[np.float64],
    truth_keys: NDArray[np.int64],
    truths: NDArray[np.float64],
    overlap: Overlap,
    at_least: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of a detection and a ground-truth segment that may be matched: same key, overlap >= at_least > 0.

    Only segments that touch are compared, or a video with very many of them would take the square of their number.

    Args:
        detection_keys: (n,) group of each detection, such as its video and class; truth_keys: (G,) likewise.
        detections: (n, 2) seconds; truths: (G, 2).
        overlap: tIoU of two arrays (p, 2).

    Returns:
        Detection rows (p,), truth rows (p,), overlaps (p,); by detection row, then by truth row.
    """
    order, first, counts = _touching(detection_keys, detections, truth_keys, truths)
    found: list[tuple[NDArray[Any], ...]] = [
        (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)),
    ]
    candidates = np.flatnonzero(counts)
    for rows in _chunks(candidates, counts[candidates]):
        of_rows = counts[rows]
        pair_rows = np.repeat(rows, of_rows)
        within = np.arange(len(pair_rows)) - np.repeat(np.cumsum(of_rows) - of_rows, of_rows)
        pair_truths = order[np.repeat(first[rows], of_rows) + within]
        values = overlap(detections[pair_rows], truths[pair_truths])
        near = values >= at_least
        found.append((pair_rows[near], pair_truths[near], values[near]))
    rows, partners, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((partners, rows))
    return rows[order], partners[order], values[order]


def _touching(
    detection_keys: NDArray[np.int64],
    detections: NDArray[np.float64],
    truth_keys: NDArray[np.int64],
    truths: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """An order (G,) of the truths, and for each detection where in it those begin that may touch it, and how many.

    In a group the truths are ordered by start, so those that touch a detection lie between the start that is the
    group's greatest length before it and its end.
    """
    starts, ends = truths.min(axis=1), truths.max(axis=1)
    order = np.lexsort((starts, truth_keys))
    keys, starts = truth_keys[order], starts[order]
    first = np.searchsorted(keys, detection_keys, side="left")
    stop = np.searchsorted(keys, detection_keys, side="right")
    rows = np.flatnonzero(stop > first)
    if len(rows):
        firsts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
        greatest = np.maximum.reduceat(np.nextafter(ends[order] - starts, np.inf), firsts)
        reach = greatest[np.searchsorted(firsts, first[rows])]
        low, high = detections[rows].min(axis=1), detections[rows].max(axis=1)
        begin = _first_not_before(starts, first[rows], stop[rows], np.nextafter(low - reach, -np.inf))
        stop[rows] = _first_not_before(starts, begin, stop[rows], np.nextafter(high, np.inf))
        first[rows] = begin
    return order, first, stop - first


def _first_not_before(
    values: NDArray[np.float64], low: NDArray[np.int64], high: NDArray[np.int64], bound: NDArray[np.float64]
) -> NDArray[np.int64]:
    """In each stretch from `low` to before `high`, where `values` ascend, the first that is at least `bound`."""
    low, high = low.copy(), high.copy()
    open_ = np.flatnonzero(low < high)
    while len(open_):
        middle = (low[open_] + high[open_]) // 2
        before = values[middle] < bound[open_]
        low[open_[before]] = middle[before] + 1
        high[open_[~before]] = middle[~before]
        open_ = open_[low[open_] < high[open_]]
    return low


def match_in_turn(chooser: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Match as if the choosers came in the order of their numbers and each took the first free one of its list.

    Args:
        chooser: (p,) non-decreasing; chosen: (p,): the list of each chooser, what it likes best first.

    Returns:
        Indices of the pairs that are matched, in the order of the choosers.
    """
    if len(chooser) == 0:
        return np.zeros(0, dtype=np.int64)
    at = np.flatnonzero(np.r_[True, chooser[1:] != chooser[:-1]])
    stop = np.r_[at[1:], len(chooser)]
    holder = np.empty(int(chosen.max()) + 1, dtype=np.int64)
    while True:
        proposer = np.arange(len(at))
        wish = chosen[at]
        # Of repeated indices the last assignment stays, which in this order is the earliest proposer.
        holder[wish[::-1]] = proposer[::-1]
        refused = holder[wish] != proposer
        if not refused.any():
            return at
        at = at + refused
        goes_on = at < stop
        at, stop = at[goes_on], stop[goes_on]


def _chunks(rows: NDArray[np.int64], counts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """`rows` in pieces whose counts add up to at most `PAIRS_AT_ONCE` (one row may exceed it)."""
    if len(rows) == 0:
        return
    piece = np.cumsum(counts) // PAIRS_AT_ONCE
    yield from np.split(rows, np.flatnonzero(np.diff(piece)) + 1)
