"""What a user's files hold, as one digest, and whether they are still what they were when they were described.

The digest stands in the data set's parameters and therefore in the key of everything made from it. Reading hundreds of
gigabytes before each stage would be too much: a file whose size, times and inode are those of the last look is taken
as unchanged (as Git and DVC do), any other is read again.

In order of reading: `content_digest`, `refuse_changed`.
"""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rdfa.data.activitynet_json import member, refuse_invisible
from rdfa.data.annotations import LAYOUT
from rdfa.data.annotations_csv import read_csv
from rdfa.errors import RdfaError
from rdfa.files import read_json, sha256, write_json
from rdfa.schema import Own

State = dict[str, Any]


def content_digest(annotations: Path, features: Path, suffix: str | None) -> str:
    """SHA-256 over the annotations and the features of each annotated video, wherever the files are.

    A folder's other files do not count, and an annotated video without a file does, as absent.

    Raises:
        RdfaError: a file cannot be read, or the annotations are neither CSV nor ActivityNet JSON.
    """
    digest = hashlib.sha256()
    try:
        for name, path in _files(annotations, features, suffix):
            digest.update(f"{name}\n{sha256(path) if path else 'absent'}\n".encode())
    except OSError as error:
        raise RdfaError(f"{error.filename}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def refuse_changed(dataset: str, own: Own | None, folder: Path) -> None:
    """Refuse to go on with a data set whose files are no longer those that its parameters describe.

    Files that are gone altogether are no obstacle: what was fetched from them is what the parameters describe.

    Args:
        folder: the data set's folder; what was seen is remembered beside it.

    Raises:
        RdfaError: the files hold something else.
    """
    if own is None or not (Path(own.annotations).exists() and Path(own.features).exists()):
        return
    seen = folder.parent / f".{folder.name}.seen.json"
    described = own.model_dump(mode="json")
    if _is_as_seen(seen, described):
        return
    annotations, features = Path(own.annotations), Path(own.features)
    now = {str(path): _state(path) for _, path in _files(annotations, features, own.suffix) if path}
    if content_digest(annotations, features, own.suffix) != own.sha256:
        raise RdfaError(
            f"{dataset}: {annotations} or {features} changed since params/datasets/{dataset}.yaml described them;\n"
            f"look at them with `rdfa check-data {dataset}`, then run `rdfa new-dataset {dataset} --refresh`"
        )
    with suppress(RdfaError):  # a data folder that cannot be written: the files are read again next time
        write_json(seen, {"own": described, "files": now})


def listed(folder: Path, suffix: str) -> dict[str, Path]:
    """The feature files of a folder: video → file, by name.

    Raises:
        RdfaError: the folder cannot be read.
    """
    try:
        return {
            path.name.removesuffix(suffix): path
            for path in sorted(folder.iterdir())
            if path.name.endswith(suffix) and path.name != suffix and path.is_file()
        }
    except OSError as error:
        raise RdfaError(f"{folder}: cannot be read ({error.strerror})") from error


def _files(annotations: Path, features: Path, suffix: str | None) -> Iterator[tuple[str, Path | None]]:
    """Everything that counts: a name that does not depend on where it is, and the file (None: there is none)."""
    yield "annotations", annotations
    if suffix is None:
        yield "features", features
        return
    files = listed(features, suffix)
    for video in sorted(_annotated(annotations)):
        yield f"features of {video}", files.get(video)


def _annotated(path: Path) -> list[str]:
    """Names of the annotated videos; whatever else is wrong with the file is for others to say."""
    if path.suffix == ".csv":
        return [video.name for video in read_csv(path)]
    names = list(member(path, read_json(path), "database", LAYOUT))
    refuse_invisible(path, names)
    return names


def _is_as_seen(seen: Path, described: dict[str, Any]) -> bool:
    try:
        content = read_json(seen)
        return content["own"] == described and all(
            _state(Path(path)) == state for path, state in content["files"].items()
        )
    except (RdfaError, OSError, KeyError, TypeError, AttributeError):
        return False


def _state(path: Path) -> list[int]:
    """What changes whenever a file's content does, unless somebody takes pains that it does not."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
