"""Figures of a diagnosis, of one run or of several side by side, as SVG and PNG.

In the order of reading: `write_figures`, then one function per figure: `false_positive_figure`, `sensitivity_figure`,
`false_negative_figure`. Nothing is told by colour alone (hatches, values), so that they survive a grey print. The same
diagnosis gives the same bytes: no dates, fixed identifiers, matplotlib's own defaults instead of a user's settings.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from rdfa.errors import RdfaError
from rdfa.evaluation.diagnosis import Diagnosis
from rdfa.evaluation.diagnosis.characteristics import LEAST_PRECISION, Characteristic
from rdfa.evaluation.diagnosis.false_positives import KINDS, MULTIPLES
from rdfa.files import written_whole

Runs = Mapping[str, Diagnosis]
"""Name → its diagnosis, all against the same ground truth; in the order of drawing."""

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "rdfa",
    "text.parse_math": False,  # names of classes and rows are no formulas
    "svg.fonttype": "none",  # text stays text: searchable, and read out
    "savefig.dpi": 150,
}
METADATA = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
"""Endings of the files, and what is left out of them so that the same figure gives the same bytes."""
KIND_FILLS = (
    ("#1a7a4c", "", "true positive (tIoU ≥ α, right class)"),
    ("#ffd92f", "///", "double detection (the same, but found before)"),
    ("#e78ac3", "\\\\\\", "wrong label (tIoU ≥ α, another class)"),
    ("#8da0cb", "xxx", "localisation (0.1 ≤ tIoU < α, right class)"),
    ("#fc8d62", "...", "confusion (0.1 ≤ tIoU < α, another class)"),
    ("#e5e5e5", "", "background (tIoU < 0.1)"),
)
"""Colour, hatch and explanation of each of `KINDS`."""
RUN_COLOURS = ("#4477aa", "#ddaa33", "#bb5566", "#aaaaaa", "#66ccee", "#228833", "#ffffff")
RUN_HATCHES = ("", "///", "...", "xxx", "\\\\\\", "---", "ooo", "+++")
TITLES = {
    "coverage": "coverage (% of the video)",
    "length": "length (seconds)",
    "instances": "instances in the video",
}


def write_figures(folder: Path, runs: Runs, title: str) -> list[Path]:
    """Draw the three figures; returns the paths of the SVG and PNG files.

    Args:
        title: data set and scale, as "THUMOS-14 (full)": the head of every figure.

    Raises:
        RdfaError: no run, runs that differ in ground truth, tIoU or bins, a file that cannot be written.
    """
    _check_comparable(runs)
    drawings: dict[str, Callable[[Runs, str], Figure]] = {
        "false_positives": false_positive_figure,
        "sensitivity": sensitivity_figure,
        "false_negatives": false_negative_figure,
    }
    paths = []
    with matplotlib.style.context(["default", STYLE]):  # whatever the user's matplotlibrc says
        for name, draw in drawings.items():
            figure = draw(runs, title)
            for ending in METADATA:
                paths.append(folder / f"{name}.{ending}")
                save_figure(figure, paths[-1])
    return paths


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's ending, one of `METADATA`, whole or not at all."""
    ending = path.suffix.removeprefix(".")
    with written_whole(path) as temporary:
        figure.savefig(temporary, format=ending, metadata=METADATA[ending])


def false_positive_figure(runs: Runs, title: str) -> Figure:
    """A row per run: kinds of its best detections by rank, and what removing each kind of error would gain."""
    figure = Figure(figsize=(10, 1.3 + 2.9 * len(runs)), layout="constrained")
    figure.suptitle(f"{title}: what is wrong with the best detections ({_tious(runs)})")
    axes = figure.subplots(len(runs), 2, squeeze=False, width_ratios=(3, 2))
    highest = max(100 * float(run.false_positives.impact.max()) for run in runs.values())
    for (left, right), (name, run) in zip(axes, runs.items(), strict=True):
        _draw_profile(left, name, run)
        _draw_impact(right, run, highest)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def sensitivity_figure(runs: Runs, title: str) -> Figure:
    """Average-mAP_N in each bin of each characteristic, and how much it varies."""
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    figure.suptitle(f"{title}: which actions are detected well ({_tious(runs)})")
    left, right = figure.subplots(1, 2, width_ratios=(3.6, 1))
    bars = _draw_bins(left, runs, lambda each: 100 * each.scores)
    labels = _draw_overall(left, {name: 100 * run.average for name, run in runs.items()})
    left.set_ylabel("average mAP_N (%)")
    left.set_title(
        "normalised average mAP (mAP_N) on the instances of each bin; lines: on all instances", loc="left", pad=22
    )
    _draw_variation(right, runs)
    figure.legend(bars, labels, loc="outside lower center", ncols=min(len(runs), 4), frameon=False)
    return figure


def false_negative_figure(runs: Runs, title: str) -> Figure:
    """Share of the instances that is missed in each bin of each characteristic."""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    figure.suptitle(f"{title}: which actions are missed ({_tious(runs)})")
    axes = figure.subplots()
    bars = _draw_bins(axes, runs, lambda each: 100 * each.missed)
    labels = _draw_overall(axes, {name: 100 * run.missed for name, run in runs.items()})
    axes.set_ylabel("missed instances (%)")
    axes.set_title(
        f"share of the instances that no detection finds at a normalised precision above {LEAST_PRECISION:.0%}; "
        "lines: of all instances",
        loc="left",
        pad=22,
    )
    figure.legend(bars, labels, loc="outside lower center", ncols=min(len(runs), 4), frameon=False)
    return figure


def _check_comparable(runs: Runs) -> None:
    if not runs:
        raise RdfaError("there is no diagnosis to draw")
    first, *others = (
        (run.tious.tolist(), run.ground_truth, [(each.bins, each.counts.tolist()) for each in run.characteristics])
        for run in runs.values()
    )
    if any(other != first for other in others):
        raise RdfaError("runs can be drawn side by side only if they share ground truth, tIoU thresholds and bins")


def _draw_profile(axes: Axes, name: str, run: Diagnosis) -> None:
    profile = run.false_positives
    places = np.arange(1, MULTIPLES + 1)
    bottom = np.zeros(MULTIPLES)
    for (colour, hatch, label), share in zip(KIND_FILLS, 100 * profile.shares.T, strict=True):
        axes.bar(places, share, 0.85, bottom, color=colour, hatch=hatch, edgecolor="black", linewidth=0.5, label=label)
        bottom += share
    for place in places[profile.sizes == 0].tolist():
        axes.annotate("no\ndetections", (place, 2), ha="center", va="bottom", fontsize=6.5, rotation=90)
    axes.set_xticks(places, ["1st G", "2nd", "3rd", *(f"{place}th" for place in places[3:].tolist())])
    axes.set_xlabel(
        f"detections by score within their class, G = {run.ground_truth} (the number of instances) at a time"
    )
    axes.set_ylabel("share of detections (%)")
    axes.set_ylim(0, 100)
    axes.set_title(f"{name}: kinds of detections", loc="left")


def _draw_impact(axes: Axes, run: Diagnosis, highest: float) -> None:
    impact = 100 * run.false_positives.impact
    for place, (value, (colour, hatch, _)) in enumerate(zip(impact.tolist(), KIND_FILLS[1:], strict=True)):
        bar = axes.bar(place, value, 0.8, color=colour, hatch=hatch, edgecolor="black", linewidth=0.5)
        axes.bar_label(bar, fmt="%.1f", padding=2)
    axes.set_xticks(range(len(impact)), [kind.replace(" ", "\n") for kind in KINDS[1:]], fontsize=8)
    axes.set_ylim(0, max(1.2 * highest, 1.0))
    axes.set_ylabel("gain (percentage points)")
    axes.set_title(
        f"gain in normalised average mAP (mAP_N)\nwithout the errors of a kind; "
        f"now {100 * run.false_positives.average:.1f} %",
        loc="left",
    )


def _draw_bins(axes: Axes, runs: Runs, value: Callable[[Characteristic], NDArray[np.float64]]) -> list[Artist]:
    """Bars of all bins, the characteristics one beside the other, the runs of a bin together; per cent."""
    first = next(iter(runs.values()))
    sizes = [len(each.counts) for each in first.characteristics]
    starts = np.cumsum([0, *sizes[:-1]]) + np.arange(len(sizes)) * 0.7
    places = np.concatenate([start + np.arange(size) for start, size in zip(starts, sizes, strict=True)])
    heights = [np.concatenate([value(each) for each in run.characteristics]) for run in runs.values()]
    bars = draw_grouped(axes, places, heights)
    ticks = [label for each in first.characteristics for label in _bin_labels(each)]
    axes.set_xticks(places, ticks, fontsize=7.5)
    axes.tick_params(axis="x", length=0)
    for each, start, size in zip(first.characteristics, starts.tolist(), sizes, strict=True):
        middle = start + (size - 1) / 2
        where = axes.get_xaxis_transform()
        axes.text(middle, 1.02, f"by {TITLES[each.name]}", ha="center", weight="bold", transform=where)
        if start > 0:
            axes.axvline(start - 0.85, color="grey", linewidth=0.8, linestyle="dotted")
    top = max(float(np.nanmax(height)) for height in heights)
    axes.set_ylim(0, min(1.15 * top, 108) if top > 0 else 1)
    axes.set_xlim(places[0] - 0.7, places[-1] + 0.7)
    return bars


def _draw_overall(axes: Axes, values: Mapping[str, float]) -> list[str]:
    """A line per run at its overall value, with the number at its end; returns labels for the legend."""
    for number, value in enumerate(values.values()):
        axes.axhline(value, color="black", linewidth=1, linestyle=("--", ":", "-.")[number % 3])
        where = axes.get_yaxis_transform()
        axes.text(1.005, value, f"{value:.1f}", va="center", fontsize=7.5, transform=where)
    return [f"{name} (all instances: {value:.1f} %)" for name, value in values.items()]


def _draw_variation(axes: Axes, runs: Runs) -> None:
    names = [each.name for each in next(iter(runs.values())).characteristics]
    places = np.arange(2.0 * len(names)) + np.repeat(np.arange(len(names)) * 0.4, 2)
    heights = [
        100 * np.array([value for each in run.characteristics for value in (each.sensitivity, each.impact)])
        for run in runs.values()
    ]
    draw_grouped(axes, places, heights)
    axes.set_xticks(places, ["best −\nworst", "best −\nall"] * len(names), fontsize=6)
    for start, name in zip(places[::2].tolist(), names, strict=True):
        axes.text(start + 0.5, 1.02, name, ha="center", weight="bold", transform=axes.get_xaxis_transform())
    axes.set_ylim(0, max(1.15 * max(float(height.max()) for height in heights), 1.0))
    axes.set_ylabel("percentage points")
    axes.set_title("sensitivity: best bin − worst bin\nimpact: best bin − all instances", loc="left", pad=22)


def draw_grouped(
    axes: Axes,
    places: NDArray[np.float64],
    heights: Sequence[NDArray[np.float64]],
    spreads: Sequence[NDArray[np.float64]] = (),
) -> list[Artist]:
    """One bar per run at each place, labelled with its value; none where it is NaN. Returns a bar of each run.

    Args:
        spreads: of each run; half the length of the lines on its bars.
    """
    width = 0.84 / len(heights)
    drawn: list[Artist] = []
    for number, values in enumerate(heights):
        bars = axes.bar(
            places + (number - (len(heights) - 1) / 2) * width,
            np.nan_to_num(values),
            width,
            yerr=np.nan_to_num(spreads[number]) if spreads else None,
            error_kw={"linewidth": 0.8},
            color=RUN_COLOURS[number % len(RUN_COLOURS)],
            hatch=RUN_HATCHES[number % len(RUN_HATCHES)],
            edgecolor="black",
            linewidth=0.5,
        )
        form = ".0f" if len(heights) > 1 else ".1f"
        texts = ["" if np.isnan(value) else f"{value:{form}}" for value in values.tolist()]
        many = len(heights) > 2
        labels = axes.bar_label(bars, texts, padding=2, fontsize=6 if many else 7, rotation=90 if many else 0)
        for label in labels:
            label.set_path_effects([withStroke(linewidth=2, foreground="white")])  # lines pass behind
        drawn.append(bars.patches[0])
    return drawn


def _bin_labels(characteristic: Characteristic) -> list[str]:
    """Name, range and number of instances of each bin, on three lines."""
    edges = characteristic.bins.edges
    labels = []
    for index, name in enumerate(characteristic.bins.names):
        low, high = edges[index], edges[index + 1]
        if characteristic.name == "instances":
            least = int(np.floor(low)) + 1
            text = f"{least} or more" if np.isinf(high) else f"{least} to {high:g}" if high > least else f"{high:g}"
        else:
            factor = 100 if characteristic.name == "coverage" else 1
            text = f"> {_short(factor * low)}"
            if index < len(edges) - 2:
                text = (f"{_short(factor * low)}–" if index else "≤ ") + _short(factor * high)
        labels.append(f"{name}\n{text}\nn = {characteristic.counts[index]}")
    return labels


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.4g}"


def _tious(runs: Runs) -> str:
    tious = next(iter(runs.values())).tious
    if len(tious) == 1:
        return f"tIoU threshold α = {tious[0]:g}"
    return f"mean over {len(tious)} tIoU thresholds α, {tious.min():g} to {tious.max():g}"
