"""What `rdfa check-data` prints: a data set in a page of text."""

import numpy as np

from rdfa.data.inspection import Floats, Inspection
from rdfa.schema import visible

BINS, WIDTH = 10, 40
"""Bars of a histogram, and characters of the longest."""
MOST_CLASSES = 40
"""Classes that are listed; of more, the most and the least frequent halves of as many."""


def as_text(found: Inspection) -> str:
    """Counts, lengths, suggestions and findings, errors first."""
    lines = [f"{found.name}: {sum(videos for videos, *_ in found.subsets.values())} annotated videos"]
    for subset, (videos, instances, seconds) in found.subsets.items():
        lines.append(f"  {subset}: {videos} videos, {instances} instances, {seconds / 3600:.2f} hours")
    lines += ["", *_class_lines(found)]
    lines += ["", "videos, seconds", *histogram(found.video_seconds)]
    lines += ["", "instances, seconds", *histogram(found.instance_seconds[found.instance_seconds > 0])]
    if len(found.steps):
        ratio = found.steps[:, 1] / found.steps[:, 0]
        lines += [
            "",
            "grid steps of the features / steps that durations, stride, window and fps ask for: "
            f"median {np.median(ratio):.3f}, from {ratio.min():.3f} to {ratio.max():.3f}",
        ]
    ranges = ", ".join(f"[{low:g}, {high:g}]" for low, high in found.ranges)
    shares = ", ".join(f"{100 * share:.0f}" for share in found.shares)
    lines += [
        "",
        "suggestions, from the training subset",
        f"  model.regression_ranges: [{ranges}]",
        f"    per cent of the instances at each level: {shares}",
        f"  windows.max_length: {found.max_length}",
        "",
    ]
    lines += [f"{'ERROR' if finding.error else 'warning'}: {finding}" for finding in found.findings]
    warnings = len(found.findings) - found.errors
    lines.append(f"{found.errors} errors, {warnings} warnings")
    return visible("\n".join(lines)) + "\n"


def histogram(values: Floats) -> list[str]:
    """Bars of a histogram with bins of equal ratio, one line each; no more than the values need."""
    if not len(values):
        return ["  none"]
    edges = edges_of(values)
    counts, _ = np.histogram(values, edges)
    lines = []
    for low, high, count in zip(edges[:-1], edges[1:], counts.tolist(), strict=True):
        bar = "#" * -(-WIDTH * count // max(counts.max(), 1))
        lines.append(f"  {low:8.3g} to {high:8.3g}  {count:6d}  {bar}".rstrip())
    middle = np.quantile(values, [0.05, 0.5, 0.95])
    lines.append("  5 %, 50 %, 95 %: " + ", ".join(f"{value:.3g}" for value in middle))
    return lines


def edges_of(values: Floats) -> Floats:
    """Bounds of the bins of a histogram of positive values: equal ratios, the ends included."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([low * 0.99, high * 1.01])
    edges = np.geomspace(low, high, BINS + 1)
    edges[0], edges[-1] = low, high  # geomspace rounds
    return np.asarray(edges)


def _class_lines(found: Inspection) -> list[str]:
    """A line per class, the most frequent first, with its instances in each subset."""
    subsets = list(found.subsets)
    rows = sorted(found.classes.items(), key=lambda row: (-sum(row[1].values()), row[0]))
    width = max([len("class"), *(len(name) for name in found.classes)])
    head = f"  {'class':<{width}}" + "".join(f"  {subset:>10}" for subset in subsets)
    lines = [f"  {name:<{width}}" + "".join(f"  {counts[each]:>10}" for each in subsets) for name, counts in rows]
    if len(lines) > MOST_CLASSES:
        half = MOST_CLASSES // 2
        lines = [*lines[:half], f"  ... {len(lines) - 2 * half} more", *lines[-half:]]
    return [f"{len(rows)} classes, instances", head, *lines]
