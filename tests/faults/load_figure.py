"""The growth of all stages as a figure and as a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdfa.reporting.drawing import DARK, LIGHT, LINES, MARKERS, MIDDLE
from rdfa.reporting.figures import STYLE, save_figure
from tests.faults.load_growth import FLAT, Growth

COLUMNS = {"seconds": "CPU time, s", "mib": "memory, MiB"}


def draw(found: Mapping[str, Sequence[Growth]], path: Path) -> None:
    """A row of panels for each unit: time and memory of each stage, log-log, slopes in the legend."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(11, 1 + 3.6 * len(found)), layout="constrained")
        figure.suptitle("What a stage costs when there is more of everything; slope: power of growth, 1 is linear")
        grid = figure.subplots(len(found), 2, squeeze=False)
        for (unit, growths), row in zip(found.items(), grid, strict=True):
            for axes, what in zip(row, COLUMNS, strict=True):
                _panel(axes, unit, what, growths)
        save_figure(figure, path)


def _panel(axes: Axes, unit: str, what: str, growths: Sequence[Growth]) -> None:
    for number, growth in enumerate(growths):
        filled, marker = MARKERS[number % len(MARKERS)]
        shade = (DARK, MIDDLE)[number % 2]
        axes.plot(
            growth.sizes[1:],
            growth.column(what)[1:],
            color=shade,
            linestyle=LINES[number % len(LINES)],
            marker=marker,
            markerfacecolor=shade if filled else "white",
            markersize=5,
            linewidth=1,
            label=f"{growth.name}: {_said(growth, what)}",
        )
    axes.set(xscale="log", yscale="log", xlabel=unit, ylabel=COLUMNS[what])
    axes.grid(color=LIGHT, linewidth=0.5)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _said(growth: Growth, what: str) -> str:
    slope = growth.slope(what)
    return "flat" if slope is None else f"{slope:.2f}"


def table(found: Mapping[str, Sequence[Growth]]) -> str:
    """A row per stage: slopes, and time and memory at 1x and 10x."""
    head = ("by", "stage", "slope of time", "slope of memory", "at", "CPU s", "MiB")
    lines = [head, ("---", "---", *["---:"] * 5)]
    for unit, growths in found.items():
        for growth in growths:
            sizes, costs = growth.sizes[1::2], growth.costs[1::2]
            numbers = (
                " / ".join(f"{size:,}" for size in sizes),
                " / ".join(f"{cost.seconds:,.1f}" for cost in costs),
                " / ".join(f"{cost.mib:,.0f}" for cost in costs),
            )
            lines.append((unit, growth.name, _said(growth, "seconds"), _said(growth, "mib"), *numbers))
    note = (
        f"flat: less than {FLAT['seconds']:g} s or {FLAT['mib']:g} MiB more at the largest size than at the smallest."
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{note}\n"
