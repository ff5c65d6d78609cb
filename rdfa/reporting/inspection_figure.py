"""What `rdfa check-data --out` draws: classes, lengths of videos and instances, and whether the time grids agree."""

from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdfa.data.inspection import Floats, Inspection
from rdfa.errors import RdfaError
from rdfa.reporting.figures import METADATA, RUN_COLOURS, RUN_HATCHES, STYLE, save_figure
from rdfa.reporting.inspection_text import edges_of

MOST_NAMED = 30
"""Classes whose names fit below their bars."""


def write_inspection(path: Path, found: Inspection) -> None:
    """Draw a data set as one figure, SVG or PNG by the path's ending.

    Raises:
        RdfaError: another ending, or the file cannot be written.
    """
    if path.suffix.removeprefix(".") not in METADATA:
        raise RdfaError(f"{path}: the figure's file must end in {' or '.join(f'.{ending}' for ending in METADATA)}")
    with matplotlib.style.context(["default", STYLE]):
        save_figure(inspection_figure(found), path)


def inspection_figure(found: Inspection) -> Figure:
    """Four panels."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    warnings = len(found.findings) - found.errors
    figure.suptitle(f"{found.name}: {found.errors} errors, {warnings} warnings")
    (classes, grid), (videos, instances) = figure.subplots(2, 2)
    _draw_classes(classes, found)
    _draw_grid(grid, found.steps)
    _draw_lengths(videos, found.video_seconds, "videos")
    _draw_lengths(instances, found.instance_seconds[found.instance_seconds > 0], "instances")
    return figure


def _draw_classes(axes: Axes, found: Inspection) -> None:
    rows = sorted(found.classes.items(), key=lambda row: (-sum(row[1].values()), row[0]))
    places, bottom = np.arange(len(rows)), np.zeros(len(rows))
    for number, subset in enumerate(found.subsets):
        counts = np.array([counts[subset] for _, counts in rows])
        axes.bar(
            places,
            counts,
            0.85,
            bottom,
            label=subset,
            color=RUN_COLOURS[number % len(RUN_COLOURS)],
            hatch=RUN_HATCHES[number % len(RUN_HATCHES)],
            edgecolor="black",
            linewidth=0.4 if len(rows) <= MOST_NAMED else 0,
        )
        bottom += counts
    if len(rows) <= MOST_NAMED:
        axes.set_xticks(places, [name for name, _ in rows], rotation=90, fontsize=7)
    else:
        axes.set_xlabel("classes by frequency")
    axes.set_ylabel("instances")
    axes.legend(frameon=False)
    axes.set_title(f"{len(rows)} classes", loc="left")


def _draw_grid(axes: Axes, steps: Floats) -> None:
    axes.set_title("time: features against annotations", loc="left")
    axes.set_xlabel("grid steps that duration, stride, window and fps ask for")
    axes.set_ylabel("grid steps of the features")
    if len(steps):
        ends = [steps.min(), steps.max()]
        axes.plot(ends, ends, color="grey", linewidth=0.8, linestyle="dotted", label="equal")
        axes.scatter(steps[:, 0], steps[:, 1], s=9, color=RUN_COLOURS[0], label="a video")
        axes.legend(frameon=False)


def _draw_lengths(axes: Axes, seconds: Floats, what: str) -> None:
    axes.set_title(f"{len(seconds)} {what}", loc="left")
    axes.set_xlabel("seconds")
    axes.set_ylabel(what)
    if len(seconds):
        edges = edges_of(seconds).tolist()
        axes.hist(seconds, edges, color=RUN_COLOURS[0], edgecolor="black", linewidth=0.5)
        axes.set_xscale("log")
        axes.set_xticks(edges, [f"{edge:.3g}" for edge in edges], fontsize=7.5)
        axes.set_xticks([], minor=True)
