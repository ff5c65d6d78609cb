"""A run's folder as `rdfa train` and `rdfa import-checkpoint` write it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rdfa.files import write_sealed, write_text
from rdfa.identity import CHECKPOINT, HISTORY, LOG, PARAMS_YAML, RUN_JSON, keys, run_name
from rdfa.params import Composed, resolved_yaml
from rdfa.provenance import provenance
from rdfa.records import checksums
from rdfa.stages.opened import is_planted
from rdfa.training.checkpoint import save_weights


def write_run(
    composed: Composed,
    folder: Path,
    weights: dict[str, Tensor],
    history: str,
    log: str,
    classes: Sequence[str] | None,
    record: dict[str, Any],
    remark: str = "",
) -> None:
    """Write a run's files; run.json last, as the seal.

    Args:
        weights: named `plain.*` and `averaged.*`.
        history: CSV, a row per epoch.
        classes: names of the classes in the order of their indices, None where they are not known: with them the
            folder needs nothing else to be used (`rdfa.load`).
        record: what is particular to this run; what every run records is added.
        remark: ends the heading of the parameters.
    """
    run = composed.run
    save_weights(folder / CHECKPOINT, weights, {"run": folder.name})
    heading = f"# {run_name(run)}, resolved; after each value the file that set it{remark}\n"
    write_text(folder / PARAMS_YAML, heading + resolved_yaml(composed))
    write_text(folder / HISTORY, history)
    write_text(folder / LOG, log)
    every = {"run": run_name(run), "key": keys(run).train, "planted_data": is_planted(run), "made_by": provenance()}
    names = {"classes": None if classes is None else list(classes)}
    write_sealed(folder / RUN_JSON, every | record | names | {"files": checksums(folder)})
