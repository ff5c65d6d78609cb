"""`rdfa gc`: runs that no table uses any more."""

import shutil
from pathlib import Path

from rdfa.identity import paths
from rdfa.params import PARAMS
from rdfa.reporting.grids import elsewhere, read_table, table_names


def unused_runs(root: Path) -> list[Path]:
    """Folders of runs that no table uses, at any scale, with the parameters and the code of now."""
    scales = [path.stem for path in sorted((PARAMS / "scales").glob("*.yaml"))]
    used = {
        paths(composed.run, root).folder
        for name in [*table_names(), *elsewhere()]
        for scale in scales
        for entry in read_table(name, scale)[1]
        for composed in entry.runs
    }
    folders = sorted(path for path in (root / "results" / "runs").glob("*") if path.is_dir())
    return [folder for folder in folders if folder not in used]


def remove_unused(folders: list[Path]) -> None:
    """Delete folders of runs."""
    for folder in folders:
        shutil.rmtree(folder)
