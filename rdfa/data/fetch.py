"""`rdfa fetch`: fills a data set's folder from its source, whole or not at all.

    FOLDER/annotations.json         ground truth (rdfa.data.annotations)
    FOLDER/features.h5              feature store (rdfa.data.features)
    FOLDER/external_scores.json     video-level class scores, where the parameters use them
    FOLDER/.made.json               checksums of the files that were made here: by these they are known as ours
    FOLDER/manifest-KEY.json        what made the files, their checksums; written last

In order of reading: `fetch`; how a folder is built beside its place and swapped in; how one of real features is filled
where it is (`rdfa.data.fill`); what is checked and written down about either.
"""

import fcntl
import glob
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rdfa.data.annotations import Annotations
from rdfa.data.folder import ANNOTATIONS, FEATURES, SCORES, DataFolder, open_folder, subsets
from rdfa.data.scores import Scores
from rdfa.data.sources.hapt import write_hapt
from rdfa.data.sources.own import write_own
from rdfa.data.sources.own_digest import refuse_changed
from rdfa.data.sources.sample import write_sample
from rdfa.errors import RdfaError
from rdfa.files import read_json, sha256, write_sealed
from rdfa.schema import OWN_PATHS, Run

_UNFINISHED = (".part", ".old")
_MADE = ".made.json"
"""Outlives the manifest, which Snakemake removes when its job fails; DVC is told to ignore it (.dvcignore)."""


def fetch(run: Run, folder: Path, key: str, archive: Path | None = None) -> Path:
    """Make sure that `folder` holds the data that `run` needs; returns the path of its manifest.

    Does nothing when the manifest of `key` is there and the files are those that it lists. Whatever an interrupted
    fetch left beside the folder is removed. Two fetches into one folder wait for each other.

    Args:
        key: digest of all that decides the data, made by the caller; a part of the manifest's name.
        archive: local copy of the source's archive, for sources that have one.

    Raises:
        RdfaError: the source cannot be read, the data is not what the parameters describe, the disk is full, or the
            folder holds something that no fetch has made. Nothing that a later step would trust is left then.
    """
    refuse_changed(run.dataset, run.source.own, folder)
    if folder.is_symlink():
        folder = folder.resolve()  # data on another disk: the link stays, what it leads to is replaced
    manifest = folder / f"manifest-{key}.json"
    if not os.access(folder.parent, os.W_OK) and _is_complete(manifest):
        return manifest  # data on a read-only disk
    with _only_one(folder):
        _remove_leftovers(folder)
        if _is_complete(manifest):
            _forget_downloads(run, folder, manifest)
            return manifest
        if run.source.kind == "hub":
            _fill(run, folder, key)
        else:
            _build(run, folder, key, archive)
    return manifest


def _build(run: Run, folder: Path, key: str, archive: Path | None) -> None:
    """Make everything in a temporary sibling, check it, and put it in the folder's place."""
    others = f"{folder}: holds files that `rdfa fetch` did not make; move them away first"
    there = list(folder.iterdir()) if folder.exists() and not any(folder.glob("manifest-*.json")) else []
    found = [path for path in there if path.name != _MADE]
    if any(path.name not in (ANNOTATIONS, FEATURES, SCORES) for path in found):
        raise RdfaError(others)
    try:
        building = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
        building.mkdir()  # not by tempfile, whose folders are private: the umask says who may read and write
    except OSError as error:
        raise RdfaError(f"{folder.parent}: cannot be written ({error.strerror})") from error
    try:
        if run.source.kind == "hapt":
            write_hapt(run, building, archive)
        elif run.source.kind == "own":
            write_own(run, building)
        else:
            write_sample(run, building)
        annotations = _check(run, building, folder, read_all=False).annotations
        description = _describe(run, building, key, annotations)
        write_sealed(building / _MADE, {"files": description["files"]})
        write_sealed(building / f"manifest-{key}.json", description)
        if not all(_ours(path) or _same(path, building / path.name) for path in found):
            raise RdfaError(others)
        _swap_in(building, folder)
    except OSError as error:
        raise RdfaError(f"{folder}: cannot be written ({error.strerror or error}); nothing was changed") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _ours(path: Path) -> bool:
    """Whether a file has the checksum that the fetch which made its folder wrote down."""
    try:
        files = read_json(path.with_name(_MADE))["files"]
        return path.name in files and bool(files[path.name]["sha256"] == sha256(path))
    except (RdfaError, OSError, KeyError, TypeError):
        return False


def _same(path: Path, made: Path) -> bool:
    """Whether a file is what this fetch makes, where no checksum says whose it is: in folders of older versions."""
    return path.is_file() and made.is_file() and sha256(path) == sha256(made)


def _swap_in(building: Path, folder: Path) -> None:
    """Replace `folder` by `building`. Killed in between, the folder is absent: the next fetch builds it anew."""
    if folder.exists():
        old = building.with_suffix(".old")
        folder.rename(old)
        building.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        building.rename(folder)


def _fill(run: Run, folder: Path, key: str) -> None:
    """Provide what a folder of real features lacks, check everything, and give it a manifest."""
    from rdfa.data.fill import fill

    try:
        filled = fill(run, folder)
    except OSError as error:
        raise RdfaError(
            f"{folder}: cannot be written ({error.strerror or error}); run the same command again"
        ) from error
    try:
        opened = _check(run, folder, folder, read_all=filled.by_hand)
    except RdfaError as error:
        hint = f"\n(if {ANNOTATIONS} is right, remove {folder / FEATURES} to have it made of a new download)"
        raise RdfaError(f"{error}{hint if filled.kept else ''}") from error
    write_sealed(
        folder / f"manifest-{key}.json",
        _describe(run, folder, key, opened.annotations)
        | {"origin": filled.origin, "without_features": opened.without_features},
    )
    for subset, names in opened.without_features.items():
        if names:
            print(
                f"{folder}: {len(names)} videos of split {subset!r} lack features: {', '.join(names)}", file=sys.stderr
            )
    filled.downloads.remove()


def _forget_downloads(run: Run, folder: Path, manifest: Path) -> None:
    """Remove the downloads of a fetch that was stopped when its manifest was whole: they are as large as its data."""
    if run.source.hub is not None:
        from rdfa.data.sources.hub import Downloads

        Downloads(run.source.hub, folder).remove_parts_of(read_json(manifest).get("origin", {}).get("commit"))


def _check(run: Run, place: Path, folder: Path, read_all: bool) -> DataFolder:
    """Refuse data that training or evaluation would refuse; returns the folder, its store closed.

    Published annotation files have a few faulty segments, which are mended; our own sources may have none.

    Args:
        read_all: read every feature, for a store that no code of ours has written.
    """
    try:
        opened = open_folder(run, place)
        try:
            for subset in subsets(run) if read_all else ():
                for video in opened.annotations.subset(subset).videos:
                    opened.store.read(video.name)
        finally:
            opened.store.close()
        if opened.scores is not None:
            tested = {video.name for video in opened.annotations.subset(run.test_subset).videos}
            _check_scores(place / SCORES, opened.scores, tested, set(opened.annotations.classes))
    except RdfaError as error:
        raise RdfaError(str(error).replace(str(place), str(folder))) from error
    return opened


def _check_scores(path: Path, scores: Scores, videos: set[str], classes: set[str]) -> None:
    absent = sorted(video for video in videos if not scores.get(video))
    if absent:
        raise RdfaError(f"{path}: {len(absent)} of {len(videos)} test videos have no scores: {', '.join(absent[:5])}")
    unknown = sorted({name for of_video in scores.values() for name in of_video} - classes)
    if unknown:
        raise RdfaError(f"{path}: scores of classes that the annotations do not know: {', '.join(unknown[:5])}")


def _describe(run: Run, place: Path, key: str, annotations: Annotations) -> dict[str, Any]:
    """The manifest: everything about the data that does not depend on when or where it was made."""
    splits = {}
    for subset in subsets(run):
        videos = annotations.subset(subset).videos
        splits[subset] = {
            "videos": len(videos),
            "instances": sum(len(video.labels) for video in videos),
            "seconds": round(sum(video.duration for video in videos), 2),
        }
    names = [name for name in (ANNOTATIONS, FEATURES, SCORES) if (place / name).is_file()]
    return {
        "dataset": run.dataset,
        "key": key,
        "scale": run.scale,
        "source": run.source.model_dump(
            mode="json",
            exclude_none=True,
            exclude={"own": OWN_PATHS} if run.source.kind == "hub" else {"own": OWN_PATHS, "hub": True},
        ),
        "features": run.features.model_dump(mode="json"),
        "classes": len(annotations.classes),
        "splits": splits,
        "faulty_segments": len(annotations.faults),
        "files": {name: {"bytes": (place / name).stat().st_size, "sha256": sha256(place / name)} for name in names},
        "terms": run.source.archive.terms if run.source.kind == "hapt" and run.source.archive else None,
    }


def _is_complete(manifest: Path) -> bool:
    """Whether the manifest is there and the files beside it have the checksums that it lists."""
    if not manifest.is_file():
        return False
    try:
        files = read_json(manifest)["files"]
        return bool(files) and all(sha256(manifest.parent / name) == file["sha256"] for name, file in files.items())
    except (RdfaError, OSError, KeyError, TypeError, AttributeError):
        return False


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed fetches into this folder left beside it."""
    for ending in _UNFINISHED:
        for left in folder.parent.glob(f".{glob.escape(folder.name)}.*{ending}"):
            print(f"removing what an interrupted fetch left: {left}", file=sys.stderr)
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, a file beside it that is gone afterwards; a killed holder's lock is free."""
    path = folder.parent / f".{folder.name}.lock"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    except OSError as error:
        raise RdfaError(f"{folder.parent}: cannot be written ({error.strerror})") from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # still locked: whoever waits sees that the file is gone and makes a new one
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A descriptor that holds the lock on the file that is at `path` now."""
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)  # who may only read it can wait for it, too
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.fstat(descriptor).st_ino == path.stat().st_ino:
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
