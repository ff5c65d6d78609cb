"""Curves of a table's rows, a small panel for each: training loss, and precision against recall."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray

from rdfa.evaluation.precision_recall import PrecisionRecall
from rdfa.reporting.drawing import DARK, LIGHT, LINES, MIDDLE, Drawing, headed, panels, seeds_of
from rdfa.reporting.grid_results import RowResult

_MOST_LINES = len(LINES)
_LOG_FROM = 20
"""Losses that fall to less than one of so many are drawn on a logarithmic axis."""


class _PlainLog(LogFormatter):
    """Numbers of a logarithmic axis as they are, not as a formula."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def training_figure(rows: Sequence[RowResult]) -> Drawing | None:
    """Training loss of each row, mean and range over its seeds, before those of the others; None without histories."""
    drawn = [(row, _over_seeds(row.losses)) for row in rows if row.losses]
    if not drawn:
        return None
    figure, places = panels(len(drawn), 1.9, ("epoch", "training loss"))
    for axes, (row, (epochs, mean, low, high)) in zip(places, drawn, strict=True):
        for other, (its_epochs, its_mean, *_) in drawn:
            if other is not row:
                axes.plot(its_epochs, its_mean, color=LIGHT, linewidth=0.8)
        axes.fill_between(epochs, low, high, color=MIDDLE, alpha=0.4, linewidth=0)
        axes.plot(epochs, mean, color=DARK, linewidth=1.6, marker="o" if len(epochs) < 2 else None)
        axes.set_title(f"{row.label} ({mean[-1]:.3g})", loc="left", fontsize=9)
    top, bottom = max(float(m.max()) for _, (_, m, *_) in drawn), min(float(m.min()) for _, (_, m, *_) in drawn)
    if bottom > 0 and top / bottom > _LOG_FROM:
        places[0].set_yscale("log")
        for axes in places:
            axes.yaxis.set_major_formatter(_PlainLog())
            axes.yaxis.set_minor_formatter(_PlainLog())
    last = "; ".join(f"{row.label} {mean[-1]:.3g}" for row, (_, mean, *_) in drawn)
    return Drawing(
        name="training",
        title="Training loss",
        caption=f"Mean training loss of each epoch. Black: the row, mean over {seeds_of(drawn[0][0].runs)}; grey band: "
        "range over the seeds; light lines: the other rows. In brackets: the last epoch's.",
        alt=f"Training loss of the last epoch: {last}",
        figure=headed(figure, drawn[0][0].run, "training loss"),
    )


def precision_recall_figure(rows: Sequence[RowResult], curves: Mapping[str, Sequence[PrecisionRecall]]) -> Drawing:
    """Precision against recall at each tIoU.

    Args:
        curves: label of a row → those of its runs.
    """
    figure, places = panels(len(rows), 2.2, ("recall", "precision"))
    for axes, row in zip(places, rows, strict=True):
        _draw_precision(axes, curves[row.label])
        axes.set_title(row.label, loc="left", fontsize=9)
    handles, labels = places[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=_MOST_LINES, frameon=False)
    first = curves[rows[0].label]
    mean, tious = 100 * _mean(first).mean(axis=1), first[0].tious
    areas = ", ".join(f"{mean[index]:.1f} at tIoU {tious[index]:g}" for index in _few(first[0]))
    return Drawing(
        name="precision-recall",
        title="Precision and recall",
        caption=f"Interpolated precision, mean over classes and {seeds_of(rows[0].runs)}. The area under a curve is "
        "the mAP at its tIoU threshold.",
        alt=f"Area under the curves of the first row, {rows[0].label}, in per cent: {areas}",
        figure=headed(figure, rows[0].run, "precision against recall"),
    )


def _draw_precision(axes: Axes, curves: Sequence[PrecisionRecall]) -> None:
    mean, first = _mean(curves), curves[0]
    shades = np.linspace(0.0, 0.55, _MOST_LINES)
    for number, index in enumerate(_few(first)):
        axes.plot(
            first.recall,
            mean[index],
            color=str(shades[number]),
            linestyle=LINES[number],
            linewidth=1.4,
            label=f"tIoU {first.tious[index]:g}",
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)


def _mean(curves: Sequence[PrecisionRecall]) -> NDArray[np.float64]:
    return np.asarray(np.mean([curve.precision for curve in curves], axis=0))


def _few(curve: PrecisionRecall) -> list[int]:
    """Which thresholds are drawn: all, or as many as can be told apart, evenly chosen."""
    count = min(len(curve.tious), _MOST_LINES)
    return sorted({int(index) for index in np.linspace(0, len(curve.tious) - 1, count).round()})


def _over_seeds(losses: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], ...]:
    """Epochs, mean, lowest and highest loss (E,), over the epochs that all runs have."""
    epochs = sorted(set.intersection(*(set(own[:, 0].tolist()) for own in losses)))
    values = np.array([[dict(own.tolist())[epoch] for epoch in epochs] for own in losses])
    return np.array(epochs), values.mean(axis=0), values.min(axis=0), values.max(axis=0)
