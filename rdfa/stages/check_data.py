"""`rdfa check-data`: what is in a data set, and what is wrong with it."""

from pathlib import Path

from rdfa.data.annotations import read_annotations
from rdfa.data.features import FeatureStore
from rdfa.data.folder import ANNOTATIONS, FEATURES
from rdfa.data.inspection import Finding, Inspection, inspect
from rdfa.data.sources.own import OwnData
from rdfa.data.sources.own_digest import content_digest
from rdfa.errors import RdfaError
from rdfa.identity import paths, run_name
from rdfa.reporting.inspection_figure import write_inspection
from rdfa.schema import Run


def check_data_stage(run: Run, root: Path, out: Path | None = None) -> Inspection:
    """Look at a data set and draw it into `out`, if given. A user's own files are looked at where they are.

    Raises:
        RdfaError: there is nothing to look at, or not so much as a list of videos in it.
    """
    found = _own(run) if run.source.own else _fetched(run, root)
    if out is not None:
        write_inspection(out, found)
    return found


def _own(run: Run) -> Inspection:
    data, own = OwnData(run), run.source.own
    assert own is not None
    found = inspect(run, data.annotations, data, run.dataset)
    if content_digest(Path(own.annotations), Path(own.features), own.suffix) == own.sha256:
        return found
    changed = Finding(
        error=True,
        what=f"the files changed since params/datasets/{run.dataset}.yaml described them; when they are right, run "
        f"`rdfa new-dataset {run.dataset} --refresh`",
    )
    return Inspection(**{**vars(found), "findings": (changed, *found.findings)})


def _fetched(run: Run, root: Path) -> Inspection:
    where = paths(run, root)
    if not (where.data / ANNOTATIONS).is_file():
        raise RdfaError(f"{where.data}: the data is not there; run: rdfa fetch {run_name(run)}")
    store = FeatureStore(where.data / FEATURES)
    try:
        return inspect(run, read_annotations(where.data / ANNOTATIONS, faulty="keep"), store, where.data.name)
    finally:
        store.close()
