"""`rdfa diagnose`: what kind of errors the detections in one or more files make, as JSON and figures."""

from collections.abc import Sequence
from pathlib import Path

from rdfa.errors import RdfaError
from rdfa.evaluation.diagnosis import Diagnosis, diagnose
from rdfa.evaluation.diagnosis.characteristics import PRESETS, Bins
from rdfa.evaluation.diagnosis.false_positives import KINDS
from rdfa.evaluation.of_files import read_any_detections, read_ground_truth
from rdfa.files import write_json
from rdfa.reporting.figures import write_figures


def diagnose_stage(
    ground_truth: Path,
    detections: Sequence[Path],
    out: Path,
    *,
    subset: str | None,
    tious: Sequence[float],
    names: Sequence[str] = (),
    title: str | None = None,
    bins: Sequence[str] = (),
) -> dict[str, Diagnosis]:
    """Diagnose each file of detections; write `out`/NAME/{diagnosis.json, figures}, and `out`/figures of several.

    Args:
        subset: split of the ground truth; None if it has only one.
        names: one per file of detections; without, the names of the files.
        title: data set and scale, for the figures; without, the ground truth's file name and subset.
        bins: `quantiles`, `activitynet`, `thumos14`, or CHARACTERISTIC=EDGES; later ones change earlier ones.

    Raises:
        RdfaError: a file that cannot be read or written, names or bins that make no sense.
    """
    labels = _names(detections, names)
    chosen = parse_bins(bins)
    truth = read_ground_truth(ground_truth, subset)
    results = {
        label: diagnose(truth, read_any_detections(path), tious, chosen)
        for label, path in zip(labels, detections, strict=True)
    }
    heading = title or " ".join(filter(None, (ground_truth.stem, subset)))
    for label, result in results.items():
        write_json(out / label / "diagnosis.json", {"run": label, "data_set": heading} | result.as_json())
        write_figures(out / label, {label: result}, heading)
    if len(results) > 1:
        write_figures(out, results, heading)
    return results


def parse_bins(texts: Sequence[str]) -> dict[str, Bins]:
    """Bins from `thumos14` (or another of `PRESETS`) and `length=0,3,6,12,18,inf`.

    Raises:
        RdfaError: neither.
    """
    bins: dict[str, Bins] = {}
    for text in texts:
        name, equals, edges = text.partition("=")
        if not equals and name in PRESETS:
            bins |= PRESETS[name]
            continue
        try:
            bins[name] = Bins(tuple(float(edge) for edge in edges.split(",")))
        except ValueError as error:
            raise RdfaError(
                f"--bins {text!r}: must be {', '.join(PRESETS)}, or a characteristic and its edges, "
                "as length=0,3,6,12,18,inf"
            ) from error
    return bins


def as_table(results: dict[str, Diagnosis]) -> str:
    """The main numbers, in per cent, a column per run, for a person to read."""
    width = max(10, *(len(name) + 2 for name in results))
    runs = list(results.values())

    def row(name: str, values: Sequence[float]) -> str:
        return f"{name:<34}" + "".join(f"{100 * value:{width}.2f}" for value in values)

    lines = [
        f"{runs[0].ground_truth} instances, tIoU {', '.join(f'{tiou:g}' for tiou in runs[0].tious)}; per cent",
        " " * 34 + "".join(f"{name:>{width}}" for name in results),
        row("average mAP", [float(run.mean_ap.mean()) for run in runs]),
        row("average mAP_N", [run.average for run in runs]),
        row("missed instances", [run.missed for run in runs]),
        *(
            row(f"gain without {kind}", [run.false_positives.impact[index] for run in runs])
            for index, kind in enumerate(KINDS[1:])
        ),
        *(
            row(f"sensitivity to {each.name}", [run.characteristics[index].sensitivity for run in runs])
            for index, each in enumerate(runs[0].characteristics)
        ),
    ]
    for name, run in results.items():
        if run.outside:
            lines.append(f"note: {name}: {run.outside} detections in videos that the ground truth lacks (background)")
        if run.dropped:
            lines.append(f"note: {name}: {run.dropped} detections with labels without ground truth here (left out)")
    return "\n".join(lines) + "\n"


def _names(detections: Sequence[Path], names: Sequence[str]) -> list[str]:
    if names and len(names) != len(detections):
        raise RdfaError(f"{len(detections)} files of detections need as many --name, not {len(names)}")
    labels = list(names) or [path.stem for path in detections]
    for label in labels:
        if labels.count(label) > 1:
            raise RdfaError(f"two runs are called {label!r}: tell them apart with --name, once per file")
        if label in {"", ".", ".."} or "/" in label or "\\" in label:
            raise RdfaError(f"the name {label!r} cannot be a folder's: choose another with --name")
    return labels
