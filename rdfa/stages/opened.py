"""What several stages need: a run's data set, opened and checked."""

import hashlib
from dataclasses import dataclass
from typing import Any

from rdfa.data.annotations import Annotations, read_annotations
from rdfa.data.folder import ANNOTATIONS, SCORES, DataFolder, open_folder
from rdfa.data.sources.own_digest import refuse_changed
from rdfa.errors import RdfaError
from rdfa.files import read_json, sha256
from rdfa.identity import RUN_JSON, Paths, run_name
from rdfa.schema import Run


@dataclass(frozen=True, kw_only=True)
class Data(DataFolder):
    """A fetched data set, opened."""

    manifest: dict[str, Any]


def open_data(run: Run, where: Paths) -> Data:
    """Open a fetched data set and check it against the parameters.

    Raises:
        RdfaError: it is not fetched, damaged, or disagrees with the run's parameters.
    """
    manifest = read_manifest(run, where)
    refuse_other_data(run, where, manifest)
    changed = _changed(run, where, manifest)
    try:
        opened = open_folder(run, where.data)
    except RdfaError as error:
        raise RdfaError(f"{error}\n({changed})" if changed else str(error)) from error
    if not where.manifest.exists():  # the files may be of both
        changed = (
            f"{where.data}: was fetched with other parameters while it was opened; run: rdfa fetch {run_name(run)}"
        )
    if changed:
        opened.store.close()
        raise RdfaError(changed)
    return Data(**vars(opened), manifest=manifest)


def ground_truth(run: Run, where: Paths) -> Annotations:
    """What detections are judged by: the test split as it is annotated, with the videos that lack features.

    Raises:
        RdfaError: the annotations are damaged, or not those that were fetched.
    """
    annotations = read_annotations(where.data / ANNOTATIONS, faulty="keep")
    if where.manifest.exists() and (changed := _changed(run, where, read_json(where.manifest))):
        raise RdfaError(changed)
    return annotations.subset(run.test_subset)


def read_manifest(run: Run, where: Paths) -> dict[str, Any]:
    """What `rdfa fetch` wrote about the data that this run needs.

    Raises:
        RdfaError: it is not fetched, or a user's own files have changed since.
    """
    refuse_changed(run.dataset, run.source.own, where.data)
    if not where.manifest.exists():
        raise RdfaError(f"{where.data}: the data of {run_name(run)} is not there; run: rdfa fetch {run_name(run)}")
    return dict(read_json(where.manifest))


def _changed(run: Run, where: Paths, manifest: dict[str, Any]) -> str:
    """What to say of annotations or scores that are not those that the manifest lists; nothing if they are.

    The feature store is not read through: each of its chunks carries a checksum, which HDF5 verifies.
    """
    for name in (ANNOTATIONS, SCORES):
        path, listed = where.data / name, manifest["files"].get(name)
        if listed and path.is_file() and sha256(path) != listed["sha256"]:
            first = "bring the file back, or, if it is right as it is, " if run.source.kind == "hub" else ""
            return (
                f"{path}: damaged or changed since it was fetched: its SHA-256 is not the one in "
                f"{where.manifest.name}; {first}run: rdfa fetch {run_name(run)}"
            )
    return ""


def refuse_other_data(run: Run, where: Paths, manifest: dict[str, Any]) -> None:
    """Refuse to go on with a run that was trained on other bytes than those that are there now.

    Its key tells data apart by their recipe. Only downloaded data can change under one recipe, where the parameters
    name no commit or no checksum.

    Raises:
        RdfaError: the run's record has another digest.
    """
    record = where.folder / RUN_JSON
    if run.source.kind != "hub" or not record.exists():
        return
    trained_on, now = str(read_json(record).get("data_digest", "")), data_digest(manifest)
    if trained_on != now and not trained_on.startswith("unknown"):
        raise RdfaError(
            f"{where.folder}: was trained on data with the digest {trained_on[:12]}..., but in {where.data} is "
            f"{now[:12]}...; bring the old files back, or remove the run's folder to train it anew (to keep both, pin "
            "source.hub.revision and the sha256 of the files beside: then each has its own key)"
        )


def data_digest(manifest: dict[str, Any]) -> str:
    """One digest for all files of a data set, from the checksums in its manifest."""
    listed = "".join(f"{name}:{file['sha256']}\n" for name, file in sorted(manifest["files"].items()))
    return hashlib.sha256(listed.encode()).hexdigest()


def is_planted(run: Run) -> bool:
    """Whether a run's data was made by the sample source: its numbers say nothing about the papers."""
    return run.source.kind == "sample"
