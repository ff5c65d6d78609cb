"""What the figures of a table have in common: a heading that says data and scale, markers, lines, small panels."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdfa.schema import Run

PLANTED = "planted sample data: shows that the code works, not comparable with any published number"
"""Stands in the head of every figure of sample data."""
DARK, MIDDLE, LIGHT = "#1b1b1b", "#6e6e6e", "#c4c4c4"
MARKERS = tuple(product((True, False), ("o", "s", "^", "D", "v", "P", "X", "*")))
"""Filled or hollow, and shape: sixteen rows can be told apart without colour."""
LINES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2, 1, 2)))
_COLUMNS = 3


@dataclass(frozen=True, eq=False, kw_only=True)
class Drawing:
    """A figure with the words that stand beside it."""

    name: str
    """Of its file, without ending."""
    title: str
    caption: str
    """How to read it, and what was chosen to be in it."""
    alt: str
    """What it shows, for those who cannot see it: with the main numbers."""
    figure: Figure


def headed(figure: Figure, run: Run, what: str) -> Figure:
    """Put data set, scale and what is shown above a figure; planted data is called so."""
    lines = [f"{run.dataset}, scale {run.scale}: {what}"]
    if run.source.kind == "sample":
        lines.append(PLANTED)
    figure.suptitle("\n".join(lines), fontsize=10)
    return figure


def seeds_of(runs: Sequence[Run]) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"


def panels(count: int, height: float, labels: tuple[str, str]) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each of `count` rows, all with the same axes; unused places stay empty.

    Args:
        height: inches of a panel.
        labels: of the x-axes at the bottom, and of the y-axes on the left.
    """
    columns = min(count, _COLUMNS)
    rows = ceil(count / columns)
    figure = Figure(figsize=(1.2 + 2.9 * columns, 1.3 + height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    places = list(grid.flat)
    for axes in places[count:]:
        axes.set_axis_off()
    for axes in places[max(0, count - columns) : count]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(labels[0])
    for axes in places[:count:columns]:
        axes.set_ylabel(labels[1])
    return figure, places[:count]


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
