"""A data set's folder: the names of its files, and how they are opened and held against the parameters."""

from dataclasses import dataclass
from pathlib import Path

from rdfa.data.annotations import Annotations, read_annotations
from rdfa.data.features import FeatureStore
from rdfa.data.scores import Scores, read_scores
from rdfa.errors import RdfaError
from rdfa.schema import Run

ANNOTATIONS, FEATURES, SCORES = "annotations.json", "features.h5", "external_scores.json"


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """The files of a folder, opened."""

    annotations: Annotations
    store: FeatureStore
    scores: Scores | None
    """External classification scores, where the run uses them."""


def open_folder(run: Run, folder: Path) -> DataFolder:
    """Open a folder and refuse what is not the data that the run's parameters describe.

    Raises:
        RdfaError: a file is absent or damaged, or disagrees with the parameters or with another one.
    """
    # Published annotations have a few segments outside their videos; those of our own sources must have none.
    annotations = read_annotations(folder / ANNOTATIONS, faulty="mend" if run.source.kind == "hub" else "refuse")
    if len(annotations.classes) != run.num_classes:
        raise RdfaError(
            f"{folder / ANNOTATIONS}: {len(annotations.classes)} classes, "
            f"the parameters (num_classes) say {run.num_classes}"
        )
    videos = [video for name in subsets(run) for video in annotations.subset(name).videos]
    scores = read_scores(folder / SCORES) if run.detection.external_classes else None
    store = FeatureStore(folder / FEATURES)
    try:
        store.check(run.features, videos)
    except RdfaError:
        store.close()
        raise
    return DataFolder(annotations=annotations, store=store, scores=scores)


def subsets(run: Run) -> tuple[str, ...]:
    """The splits that a run uses, each once."""
    return tuple(dict.fromkeys((run.train_subset, run.test_subset)))
