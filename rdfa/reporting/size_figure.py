"""Which sizes of instances each row of a table detects well: RCL's supplement, Figure 5, of all rows."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from rdfa.reporting.drawing import Drawing, headed, seeds_of
from rdfa.reporting.figures import TITLES, draw_grouped
from rdfa.reporting.grid_results import BySize, RowResult


def by_size(rows: Sequence[RowResult]) -> list[BySize]:
    """What every row has by the size of the instances; nothing if one has none, or has it in other bins."""
    found = [row.by_size for row in rows if row.by_size is not None]
    alike = {(each.characteristic, each.bins) for each in found}
    return found if len(found) == len(rows) and len(alike) == 1 else []


def size_figure(rows: Sequence[RowResult]) -> Drawing:
    """A group of bars for all instances and for each size, a bar per row, with its value and the seeds' spread."""
    found = by_size(rows)
    groups = [_group_label(found[0].characteristic, *each) for each in found[0].bins]
    of_seeds = [np.column_stack([each.overall, each.values]) for each in found]
    means = [values.mean(axis=0) for values in of_seeds]
    spreads = [values.std(axis=0, ddof=1) for values in of_seeds if len(values) > 1]
    figure = Figure(figsize=(max(8.0, 1.2 + 0.26 * len(rows) * (1 + len(groups))), 4.6), layout="constrained")
    axes = figure.subplots()
    bars = draw_grouped(axes, np.arange(1.0 + len(groups)), means, spreads)
    axes.set_xticks(range(1 + len(groups)), ["all instances", *groups], fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.axvline(0.5, color="grey", linewidth=0.8, linestyle="dotted")
    axes.set_ylabel("average mAP_N (%)")
    axes.set_xlabel(f"instances by {TITLES[found[0].characteristic]}")
    axes.set_ylim(0, 1.18 * max(1.0, *(float(np.nanmax(mean)) for mean in means)))
    figure.legend(bars, [row.label for row in rows], loc="outside lower center", ncols=3, frameon=False)
    spread = "" if not spreads else " Lines on the bars: standard deviation over the seeds."
    return Drawing(
        name="sizes",
        title="Normalised mAP by size of the instances",
        caption=f"Normalised average mAP (mAP_N, method of DETAD, ECCV 2018) of all instances and by their "
        f"{found[0].characteristic}; every row, {seeds_of(rows[0].runs)} a bar.{spread} n: number of instances.",
        alt="Normalised average mAP in per cent: "
        + "; ".join(_told(row.label, found[0], mean) for row, mean in zip(rows, means, strict=True)),
        figure=headed(figure, rows[0].run, "normalised mAP by size of the instances"),
    )


def _group_label(characteristic: str, name: str, low: float | None, high: float | None, count: int) -> str:
    """Name, range and number of instances, on three lines."""
    factor = 100 if characteristic == "coverage" else 1
    edges = [None if edge is None else f"{factor * edge:.3g}" for edge in (low, high)]
    return f"{name}\n{f'above {edges[0]}' if edges[1] is None else f'{edges[0]} to {edges[1]}'}\nn = {count}"


def _told(label: str, sizes: BySize, mean: "np.ndarray") -> str:
    names = ["all", *(name for name, *_ in sizes.bins)]
    known = [f"{name} {value:.1f}" for name, value in zip(names, mean, strict=True) if not np.isnan(value)]
    return f"{label}: {', '.join(known)}"
