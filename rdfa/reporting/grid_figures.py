"""The figures of a table on one data set: which there are follows from its rows, not from its name."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rdfa.data.annotations import Annotations
from rdfa.data.detections import Detections
from rdfa.evaluation.diagnosis import Diagnosis, diagnose
from rdfa.evaluation.judgement import as_judged
from rdfa.evaluation.precision_recall import PrecisionRecall, precision_recall
from rdfa.reporting.accuracy_figures import (
    average_figure,
    class_figure,
    cost_figure,
    recurrence_figure,
    recurs,
    refinement_figure,
    refines,
)
from rdfa.reporting.curve_figures import precision_recall_figure, training_figure
from rdfa.reporting.drawing import Drawing, listed
from rdfa.reporting.figures import false_negative_figure, false_positive_figure, sensitivity_figure
from rdfa.reporting.grid_results import RowResult
from rdfa.reporting.grids import Entry
from rdfa.reporting.size_figure import by_size, size_figure
from rdfa.reporting.truth_timeline import RULE, choose_videos, truth_timeline


def draw(
    entries: Sequence[Entry],
    rows: Sequence[RowResult],
    truth: Annotations,
    read: Callable[[Path], Detections],
    videos: Sequence[str] = (),
) -> Iterator[Drawing]:
    """Draw all figures that apply to a table's rows on one data set, one after the other.

    Truth and detections are those that the metrics were made of: of one class where a run's labels do not count.

    Args:
        rows: results of `entries`, in their order.
        truth: the test split as it is annotated.
        read: reads a run's detections.
        videos: for the timeline; without, a rule chooses.

    Raises:
        RdfaError: detections are missing or unreadable; no video is called so.
    """
    several = len(rows) > 1
    if several:
        yield average_figure(rows)
    if recurs(entries):
        yield recurrence_figure(rows)
    if refines(entries):
        yield refinement_figure(rows)
    if several:
        yield cost_figure(rows)
    if by_size(rows):
        yield size_figure(rows)
    yield class_figure(rows)
    training = training_figure(rows)
    if training is not None:
        yield training
    yield precision_recall_figure(rows, {row.label: _curves(row, truth, read) for row in rows})
    pair = best_and_worst(rows)
    judged = {row.label: as_judged(truth, read(row.where[0].detections), row.run.evaluation) for row in pair}
    first, tious = pair[0], rows[0].run.evaluation.tious
    chosen = choose_videos(*judged[first.label], tious, first.run.evaluation.protocol, videos)
    rule = f"{listed(videos)}, as asked for" if videos else RULE.format(row=repr(first.label))
    detections = {label: found for label, (_, found) in judged.items()}
    yield truth_timeline(first.run, chosen, detections, rule, repr(first.label))
    yield from _diagnosis(first, {label: diagnose(*both, tious) for label, both in judged.items()})


def _curves(row: RowResult, truth: Annotations, read: Callable[[Path], Detections]) -> list[PrecisionRecall]:
    """The curves of a row's runs, one run's detections in memory at a time."""
    rules = row.run.evaluation
    return [precision_recall(*as_judged(truth, read(place.detections), rules), rules.tious) for place in row.where]


def best_and_worst(rows: Sequence[RowResult]) -> list[RowResult]:
    """The two rows that timeline and diagnosis set side by side."""
    ranked = sorted(rows, key=lambda row: -row.mean)
    return [ranked[0], ranked[-1]] if len(ranked) > 1 else ranked


def _diagnosis(first: RowResult, runs: dict[str, Diagnosis]) -> Iterator[Drawing]:
    run = first.run
    planted = " (planted sample data)" if run.source.kind == "sample" else ""
    title = f"{run.dataset}, scale {run.scale}{planted}"
    both = "The table's best and worst row" if len(runs) > 1 else "The row"
    how = f"{both}, first seed; the method of DETAD (ECCV 2018)."
    missed = "; ".join(f"{name} {100 * each.missed:.0f} %" for name, each in runs.items())
    normalised = "; ".join(f"{name} {100 * each.average:.1f} %" for name, each in runs.items())
    yield Drawing(
        name="false-positives",
        title="What is wrong with the best detections",
        caption=f"Kinds of detections by rank, and what removing each kind of error would gain. {how}",
        alt=f"Normalised average mAP: {normalised}; shares of kinds of errors among the best detections",
        figure=false_positive_figure(runs, title),
    )
    yield Drawing(
        name="sensitivity",
        title="Which actions are detected well",
        caption=f"Normalised average mAP by coverage, length and number of instances. {how}",
        alt=f"Normalised average mAP on all instances: {normalised}; and in bins of characteristics",
        figure=sensitivity_figure(runs, title),
    )
    yield Drawing(
        name="false-negatives",
        title="Which actions are missed",
        caption=f"Share of missed instances by coverage, length and number of instances. {how}",
        alt=f"Missed of all instances: {missed}; and in bins of characteristics",
        figure=false_negative_figure(runs, title),
    )
