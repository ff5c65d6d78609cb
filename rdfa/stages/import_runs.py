"""`rdfa import-runs`: rebuild the MLflow store from `results/`, or add to it what it lacks."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from rdfa.errors import RdfaError
from rdfa.files import read_json
from rdfa.identity import RUN_JSON
from rdfa.interruptions import uninterrupted
from rdfa.params import PARAMS, read_yaml
from rdfa.reporting.grids import elsewhere, made_of, read_table, table_key, table_names
from rdfa.reporting.tables import rows_of
from rdfa.stages.logged import import_run, log_table
from rdfa.stages.table import table_files
from rdfa.tracking import Store

logger = logging.getLogger(__name__)


def import_runs_stage(names: Sequence[str], root: Path) -> Iterator[str]:
    """Log tables with their runs, and, if no table is named, the other runs too; yields a line for each.

    Args:
        names: of tables; empty: all that `results/` has, made of the runs of now.

    Raises:
        RdfaError: a named table is not there, or is not made of the runs of now; or the store cannot be used.
    """
    known = [*table_names(), *elsewhere()]
    written = [name for name in known if table_files(name, root)[0].exists()]
    store = Store(root)
    with store.needed():
        for name in names or written:
            if name not in written:
                raise RdfaError(
                    f"{table_files(name, root)[0]}: not there; run: snakemake --cores all results/{name}.csv"
                )
            with uninterrupted():
                logged = _import_table(store, name, root)
            if not logged and names:
                raise RdfaError(f"results/{name}.csv is not made of the runs of now; run snakemake for it first")
            yield f"{name}: {'logged' if logged else 'left out, as it is not made of the runs of now'}"
        if not names:
            yield from _import_others(store, root)


def _import_table(store: Store, name: str, root: Path) -> bool:
    """Log a table if it is made of the runs of now, at any scale."""
    files = table_files(name, root)
    key = made_of(files[-1])
    for scale in (None, *sorted(path.stem for path in (PARAMS / "scales").glob("*.yaml"))):
        try:
            table, entries = read_table(name, scale)
        except RdfaError:  # a grid need not exist at every scale
            continue
        if table_key(entries) == key:
            rows = rows_of(entries, root, read_yaml(PARAMS / "published.yaml"))
            log_table(store, name, table, entries, rows, files[:-1], root)
            return True
    return False


def _import_others(store: Store, root: Path) -> Iterator[str]:
    """Runs that no table has."""
    for record in sorted((root / "results" / "runs").glob(f"*/{RUN_JSON}")):
        folder = record.parent
        try:
            if store.find(read_json(record)["key"]) is None:
                with uninterrupted():
                    import_run(store, folder, root)
                yield f"{folder.name}: imported"
        except RdfaError as error:
            logger.warning("%s: left out (%s)", folder, str(error).splitlines()[0])
