"""`rdfa track`: enter fetched data sets into `data.dvc` and DVC's cache, so that `dvc push` can share them.

Each data set is an entry of its own. `dvc add` would make a file per data set inside `data/`, which Git ignores; where
the entry is there already, it fills in the entry's hash and leaves the others alone, also those of absent data sets.

In order of reading: `track_stage`, `outlook_stage`.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from rdfa.errors import RdfaError
from rdfa.files import write_text

RECORD = "data.dvc"


def track_stage(names: Sequence[str], root: Path) -> list[str]:
    """Give data sets their entries in `data.dvc` and copies in DVC's cache; returns their folders, relative to `root`.

    Args:
        names: folders of `data/`, as thumos14-sample; empty: every data set that is fetched.
        root: the checkout.

    Raises:
        RdfaError: one is not fetched, or DVC refuses it. `data.dvc` is then what it was.
    """
    folders = [_folder(name, root) for name in names or _fetched(root)]
    if not folders:
        raise RdfaError("data: holds no fetched data set; `rdfa fetch DATASET` fetches one")
    path = root / RECORD
    before = _text(path)
    record = _parsed(path, before)
    listed = _listed(record)
    record["outs"] += [{"path": folder, "hash": "md5"} for folder in folders if folder not in listed]
    if not listed.issuperset(folders):
        write_text(path, _dumped(record))
    try:
        _dvc("add", folders, root)
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            write_text(path, before)
        raise
    return folders


def outlook_stage(names: Sequence[str], root: Path) -> str:
    """How fetched data sets compare with `data.dvc`, a line each, as text. Writes nothing.

    Data sets that this checkout has not fetched are not mentioned (a bare `dvc status` calls them deleted).
    """
    folders = [_folder(name, root) for name in names or _fetched(root)]
    path = root / RECORD
    listed = _listed(_parsed(path, _text(path)))
    known = [folder for folder in folders if folder in listed]
    found = json.loads(_dvc("status", known, root, "--json")) if known else {}
    changed = {
        name: state
        for changes in found.get(RECORD, [])
        for name, state in (changes.get("changed outs", {}) if isinstance(changes, dict) else {}).items()
    }
    says = {name: f"{state}, as {RECORD} has it" for name, state in changed.items()}
    return "".join(
        f"{folder}: {says.get(folder, 'tracked') if folder in listed else f'not in {RECORD}'}\n" for folder in folders
    )


def _fetched(root: Path) -> list[str]:
    """The folders with a manifest, which is what a fetch writes last."""
    return sorted({path.parent.name for path in (root / "data").glob("[!.]*/manifest-*.json")})


def _folder(name: str, root: Path) -> str:
    folder = Path("data", name)
    if Path(name).name != name or not any((root / folder).glob("manifest-*.json")):
        there = ", ".join(_fetched(root)) or "none"
        raise RdfaError(f"{folder}: is not a fetched data set (there are: {there}); `rdfa fetch` fetches one")
    if (root / folder).is_symlink():
        raise RdfaError(
            f"{folder}: is a link, which DVC cannot track; move the folder here, and let DVC's cache be on the large "
            "disk instead (docs/sharing.md)"
        )
    return folder.as_posix()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RdfaError(f"{path}: cannot be read ({error})") from error


def _parsed(path: Path, text: str | None) -> Any:
    """The record, comments included. What else may be wrong with it is DVC's to say."""
    try:
        record = {"outs": []} if text is None else YAML().load(text)
        if all("path" in out for out in record["outs"]):
            return record
        raise RdfaError(f"{path}: an entry of `outs` has no path; restore the file with `git checkout {RECORD}`")
    except (YAMLError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise RdfaError(f"{path}: not a file of DVC's; restore it with `git checkout {RECORD}`") from error


def _listed(record: Any) -> set[str]:
    return {str(out["path"]) for out in record["outs"]}


def _dumped(record: Any) -> str:
    stream = StringIO()
    YAML().dump(record, stream)
    return stream.getvalue()


def _dvc(command: str, folders: Iterable[str], root: Path, *options: str) -> str:
    """Standard output of a DVC command; its progress and its errors go to where ours do."""
    call = [sys.executable, "-m", "dvc", command, *options, *folders]
    done = subprocess.run(call, cwd=root, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RdfaError(f"`dvc {command}` failed (what it said is above); {RECORD} is as it was")
    return done.stdout
