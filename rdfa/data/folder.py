"""A data set's folder: the names of its files, and how they are opened and held against the parameters."""

from dataclasses import dataclass, replace
from pathlib import Path

from rdfa.data.annotations import Annotations, read_annotations
from rdfa.data.features import NAMED, FeatureStore
from rdfa.data.scores import Scores, read_scores
from rdfa.errors import RdfaError
from rdfa.schema import Run

ANNOTATIONS, FEATURES, SCORES = "annotations.json", "features.h5", "external_scores.json"


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """The files of a folder, opened."""

    annotations: Annotations
    """Without the videos that lack features."""
    without_features: dict[str, tuple[str, ...]]
    """Annotated videos that lack features, sorted, by split; only downloaded data may have some."""
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
    scores = read_scores(folder / SCORES) if run.detection.external_classes else None
    store = FeatureStore(folder / FEATURES)
    try:
        without = _without_features(run, annotations, store)
        lost = {name for names in without.values() for name in names}
        kept = replace(annotations, videos=tuple(video for video in annotations.videos if video.name not in lost))
        store.check(run.features, [video for name in subsets(run) for video in kept.subset(name).videos])
    except RdfaError:
        store.close()
        raise
    return DataFolder(annotations=kept, without_features=without, store=store, scores=scores)


def _without_features(run: Run, annotations: Annotations, store: FeatureStore) -> dict[str, tuple[str, ...]]:
    """Annotated videos that the store lacks, by split.

    Raises:
        RdfaError: in a split they are more than `source.hub.missing_at_most`; other sources may lack none.
    """
    there, most = set(store.videos), run.source.hub.missing_at_most if run.source.hub else 0.0
    without = {}
    for subset in subsets(run):
        videos = annotations.subset(subset).videos
        lost = tuple(sorted(video.name for video in videos if video.name not in there))
        if len(lost) > most * len(videos):
            names = ", ".join(lost[:NAMED]) + (", ..." if len(lost) > NAMED else "")
            limit = f"; at most {most:.2%} may (source.hub.missing_at_most)" if run.source.kind == "hub" else ""
            raise RdfaError(
                f"{store.path}: {len(lost)} of {len(videos)} annotated videos of split {subset!r} have no features: "
                f"{names}{limit}"
            )
        without[subset] = lost
    return without


def subsets(run: Run) -> tuple[str, ...]:
    """The splits that a run uses, each once."""
    return tuple(dict.fromkeys((run.train_subset, run.test_subset)))
