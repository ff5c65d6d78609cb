"""`rdfa fetch`: fill the folder of a run's data set."""

from pathlib import Path

from rdfa.data.fetch import fetch
from rdfa.identity import keys, paths
from rdfa.schema import Run


def fetch_stage(run: Run, root: Path, archive: Path | None) -> Path:
    """Fill the data set's folder from its source; returns the manifest's path."""
    return fetch(run, paths(run, root).data, keys(run).fetch, archive)
