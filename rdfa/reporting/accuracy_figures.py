"""Average mAP of a table's rows: side by side, against recurrence or refinements, against cost, and per class."""

import json
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from rdfa.params import as_plain
from rdfa.reporting.drawing import DARK, LIGHT, MARKERS, MIDDLE, Drawing, headed, seeds_of
from rdfa.reporting.grid_results import RowResult
from rdfa.reporting.grids import Entry
from rdfa.schema import Model, ProposalModel, Run, Stem

MOST_CLASSES = 30
"""More columns than this are not read; then the best and the worst half of this many are shown."""
_UNITS = (("billion ", 1e9), ("million ", 1e6), ("thousand ", 1e3), ("", 1.0))
_BARS = "Bars: standard deviation over the seeds; small circles: single seeds."
_NO_BARS = "One seed: how much of a difference is chance is not known."


def average_figure(rows: Sequence[RowResult]) -> Drawing:
    """A line per row of the table, in its order."""
    figure = Figure(figsize=(8.5, 1.5 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        _draw_seeds(axes, row.averages, np.full(len(row.averages), place))
        axes.errorbar(row.mean, place, xerr=row.spread, fmt="o", color=DARK, capsize=4, markersize=6)
        label = f"{row.mean:.1f}"
        axes.annotate(
            label,
            (row.mean, place),
            (0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            path_effects=[withStroke(linewidth=2, foreground="white")],  # lines pass behind
        )
    compared = [row.against for row in rows if row.against]
    common = max(compared, key=compared.count) if compared else None
    baseline = next((row for row in rows if row.label == common), None)
    if baseline is not None:
        axes.axvline(baseline.mean, color=MIDDLE, linestyle=":", linewidth=1)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.margins(x=0.1)
    axes.set_xlabel("average mAP (%)")
    axes.grid(axis="y", color=LIGHT, linewidth=0.5)
    dotted = f" Dotted: {baseline.label!r}, which most rows are compared with." if baseline else ""
    return Drawing(
        name="average",
        title="Average mAP of each row",
        caption=f"Average mAP, {seeds_of(rows[0].runs)} a row. {_spread_note(rows)}{dotted}",
        alt="Average mAP in per cent: " + _values(rows),
        figure=headed(figure, rows[0].run, "average mAP of each row"),
    )


def recurs(entries: Sequence[Entry]) -> bool:
    """Whether rows differ in how often the stem is applied, and in nothing else."""
    return bool(_recurrent([entry.runs[0].run for entry in entries]))


def refines(entries: Sequence[Entry]) -> bool:
    """Whether rows differ in how often RCL refines the map of proposals, and in nothing else."""
    return bool(_refined([entry.runs[0].run for entry in entries]))


def refinement_figure(rows: Sequence[RowResult]) -> Drawing:
    """mAP against n: the map before refinement, and after n iterations of one network."""
    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    axes = figure.subplots()
    lines, told = _refined([row.run for row in rows]), []
    for number, members in enumerate(lines):
        shared = [rows[index] for index in members]
        name = "" if len(lines) == 1 else f" ({shared[0].label} ...)"
        told += _draw_depths(axes, shared, f"one network, its weights shared{name}", MARKERS[number], "-")
    drawn = {_depth(rows[index].run) for members in lines for index in members}
    _label_depths(figure, axes, drawn, "n: how often the map of confidences is refined")
    return Drawing(
        name="refinement",
        title="mAP against refinements of the map",
        caption="Average mAP against the number of RCL's refinements, each n trained on its own, 0 without a refining "
        f"network; {seeds_of(rows[0].runs)} a point. {_spread_note(rows)} Only rows that differ in nothing else are in "
        "it.",
        alt="Average mAP in per cent against n: " + "; ".join(told),
        figure=headed(figure, rows[0].run, "average mAP against refinements of the map"),
    )


def recurrence_figure(rows: Sequence[RowResult]) -> Drawing:
    """mAP against r: the same weights applied r times, and untied blocks of the same depth as controls."""
    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    axes = figure.subplots()
    lines, told = _recurrent([row.run for row in rows]), []
    for number, (tied, untied) in enumerate(lines):
        shared = [rows[index] for index in tied]
        controls = [rows[index] for index in untied]
        name = "" if len(lines) == 1 else f" ({shared[0].label} ...)"
        told += _draw_depths(axes, shared, f"one block, its weights shared{name}", MARKERS[number], "-")
        if controls:
            label = f"control: blocks with weights of their own (untied){name}"
            told += _draw_depths(axes, controls, label, MARKERS[8 + number + 1], "none")
    drawn = {_depth(rows[index].run) for pair in lines for part in pair for index in part}
    _label_depths(figure, axes, drawn, "r: how often a block of the stem is applied, one after the other")
    return Drawing(
        name="recurrence",
        title="mAP against recurrence",
        caption=f"Average mAP against the number of times that the stem is applied; {seeds_of(rows[0].runs)} a point. "
        f"{_spread_note(rows)} Only rows that differ in nothing else are in it.",
        alt="Average mAP in per cent against r: " + "; ".join(told),
        figure=headed(figure, rows[0].run, "average mAP against recurrence"),
    )


def cost_figure(rows: Sequence[RowResult]) -> Drawing:
    """mAP against multiply-accumulates and against parameters."""
    figure = Figure(figsize=(9.5, 4.0 + 0.22 * len(rows) / 3), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    axes_of = {
        "MACs in one forward pass of one window": [row.cost.macs for row in rows],
        "parameters": [row.cost.parameters for row in rows],
    }
    for axes, (what, counts) in zip(panels, axes_of.items(), strict=True):
        name, unit = next(each for each in _UNITS if max(counts) >= each[1])
        places = [count / unit for count in counts]
        for row, place, (filled, marker) in zip(rows, places, _markers(len(rows)), strict=True):
            axes.errorbar(
                place,
                row.mean,
                yerr=row.spread,
                fmt=marker,
                color=DARK,
                markerfacecolor=DARK if filled else "white",
                capsize=3,
                markersize=7,
                label=row.label,
            )
        axes.set_xlabel(f"{name}{what}")
        axes.margins(0.12)
        axes.grid(color=LIGHT, linewidth=0.5)
        axes.ticklabel_format(useOffset=False)
    panels[0].set_ylabel("average mAP (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    told = (
        f"{row.label}: {row.mean:.1f} at {row.cost.macs / 1e9:.3g} G MACs, {row.cost.parameters:,} parameters"
        for row in rows
    )
    return Drawing(
        name="cost",
        title="mAP against cost",
        caption="Average mAP against multiply-accumulates, scans included, and against parameters. "
        f"{_spread_note(rows)} One window is {rows[0].run.windows.max_length} feature vectors.",
        alt="Average mAP in per cent: " + "; ".join(told),
        figure=headed(figure, rows[0].run, "average mAP against cost"),
    )


def class_figure(rows: Sequence[RowResult]) -> Drawing:
    """AP of each class in each row, printed and as grey; the easiest class on the left."""
    names = sorted(rows[0].class_ap, key=lambda name: -float(np.mean([row.class_ap[name] for row in rows])))
    half = MOST_CLASSES // 2
    shown = names if len(names) <= MOST_CLASSES else names[:half] + names[-half:]
    values = np.array([[row.class_ap[name] for name in shown] for row in rows])
    figure = Figure(figsize=(max(8.0, 2.6 + 0.36 * len(shown)), 2.2 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    lightest = 10 * np.floor(values.min() / 10)
    darkest = lightest + 1.6 * max(values.max() - lightest, 10.0)  # beyond the values: black would hide differences
    axes.imshow(values, cmap="Greys", vmin=lightest, vmax=darkest, aspect="auto")
    for place, own in enumerate(values):
        for column, value in enumerate(own.tolist()):
            colour = "white" if value > (lightest + darkest) / 2 else "black"
            axes.text(column, place, f"{value:.0f}", ha="center", va="center", fontsize=7.5, color=colour)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_xticks(range(len(shown)), shown, rotation=55, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(names) > len(shown):
        axes.axvline(half - 0.5, color=DARK, linewidth=1.5)
    chosen = f" Of {len(names)} classes the {half} best and the {half} worst." if len(names) > len(shown) else ""
    means = values.mean(axis=0)
    return Drawing(
        name="per-class",
        title="AP per class",
        caption="AP in per cent, mean over tIoU thresholds and seeds; the easiest class, by its mean over rows, first. "
        "The darker, the higher." + chosen,
        alt=f"Classes from the easiest, {shown[0]} ({means[0]:.0f} % on average over the rows), to the hardest, "
        f"{shown[-1]} ({means[-1]:.0f} %)",
        figure=headed(figure, rows[0].run, "AP of each class (%)"),
    )


def _recurrent(runs: Sequence[Run]) -> list[tuple[list[int], list[int]]]:
    """Rows that differ only in how often the stem is applied: by index, those of shared weights and the untied."""
    alike: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        values = as_plain(run)
        if not isinstance(run.model, Model):
            continue
        values["model"]["stem"] |= {"recurrence": None, "blocks": None}
        alike.setdefault(json.dumps(values, sort_keys=True), []).append(index)
    found = []
    for members in alike.values():
        fewest = min(_stem(runs[index]).blocks for index in members)
        tied = [index for index in members if _stem(runs[index]).blocks == fewest]
        untied = [index for index in members if index not in tied]
        if fewest > 0 and len({_stem(runs[index]).recurrence for index in tied}) > 1:
            found.append((sorted(tied, key=lambda index: _depth(runs[index])), untied))
    return found


def _refined(runs: Sequence[Run]) -> list[list[int]]:
    """Rows that differ only in how often the map is refined: by index, the fewest refinements first."""
    alike: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        if isinstance(run.model, ProposalModel) and run.model.refine is not None:
            values = as_plain(run)
            values["model"]["refine"]["iterations"] = None
            alike.setdefault(json.dumps(values, sort_keys=True), []).append(index)
    lines = [sorted(members, key=lambda index: _depth(runs[index])) for members in alike.values()]
    return [members for members in lines if _depth(runs[members[0]]) < _depth(runs[members[-1]])]


def _label_depths(figure: Figure, axes: Axes, drawn: set[int], what: str) -> None:
    """Say what mAP is drawn against, at each depth that is drawn, with the legend below."""
    axes.set_xticks(sorted(drawn))
    axes.set_xlabel(what)
    axes.set_ylabel("average mAP (%)")
    axes.margins(x=0.08, y=0.15)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)


def _depth(run: Run) -> int:
    """How often weights are applied, one after the other: r times the blocks, or n refinements."""
    if isinstance(run.model, ProposalModel):
        assert run.model.refine is not None, "only these are drawn"
        return run.model.refine.iterations
    return _stem(run).recurrence * _stem(run).blocks


def _stem(run: Run) -> Stem:
    assert isinstance(run.model, Model), "only these are drawn"
    return run.model.stem


def _draw_depths(axes: Axes, rows: Sequence[RowResult], label: str, marker: tuple[bool, str], line: str) -> list[str]:
    depths = [_depth(row.run) for row in rows]
    for depth, row in zip(depths, rows, strict=True):
        _draw_seeds(axes, np.full(len(row.averages), depth), row.averages)
    spreads = [row.spread for row in rows]
    axes.errorbar(
        depths,
        [row.mean for row in rows],
        yerr=None if None in spreads else [spread or 0.0 for spread in spreads],
        marker=marker[1],
        linestyle=line,
        color=DARK,
        markerfacecolor=DARK if marker[0] else "white",
        capsize=4,
        markersize=7,
        label=label,
    )
    return [f"{label}: " + ", ".join(f"{row.mean:.1f} at {depth}" for depth, row in zip(depths, rows, strict=True))]


def _draw_seeds(axes: Axes, x: "np.ndarray", y: "np.ndarray") -> None:
    if len(x) > 1:
        axes.plot(x, y, "o", markersize=4, markerfacecolor="white", markeredgecolor=MIDDLE, markeredgewidth=0.8)


def _markers(count: int) -> list[tuple[bool, str]]:
    return [MARKERS[number % len(MARKERS)] for number in range(count)]


def _spread_note(rows: Sequence[RowResult]) -> str:
    return _BARS if any(row.spread is not None for row in rows) else _NO_BARS


def _values(rows: Sequence[RowResult]) -> str:
    spread = (f" ± {row.spread:.1f}" if row.spread is not None else "" for row in rows)
    return "; ".join(f"{row.label} {row.mean:.1f}{add}" for row, add in zip(rows, spread, strict=True))
