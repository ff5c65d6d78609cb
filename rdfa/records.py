"""What a run's `run.json` knows of the files beside it: their checksums, for files that have none inside."""

from pathlib import Path

from rdfa.errors import RdfaError
from rdfa.files import read_json, sha256
from rdfa.identity import HISTORY, PARAMS_YAML, RUN_JSON

CHECKED = (PARAMS_YAML, HISTORY)
"""Weights carry their own checksum (rdfa.training.checkpoint); the log is for people."""


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a run's folder that have no checksum inside, by name."""
    return {name: sha256(folder / name) for name in CHECKED if (folder / name).is_file()}


def intact(path: Path) -> Path:
    """The path of a file in a run's folder, if it holds what was written there. Runs of older versions know nothing.

    Raises:
        RdfaError: it is damaged or was changed, or the record itself is damaged.
    """
    record = path.with_name(RUN_JSON)
    if path.is_file() and record.is_file():
        content = read_json(record)
        known = content.get("files") if isinstance(content, dict) else None
        if isinstance(known, dict) and known.get(path.name) not in (None, sha256(path)):
            raise RdfaError(
                f"{path}: damaged or changed: its SHA-256 is not the one in {RUN_JSON} beside it; bring the file back, "
                "or remove the folder to have the run made again"
            )
    return path
