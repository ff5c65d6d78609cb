"""The tags by which a run is found in MLflow."""

from collections.abc import Mapping
from typing import Any

from rdfa.provenance import provenance
from rdfa.schema import Run
from rdfa.stages.opened import is_planted


def tags(run: Run, digest: str, made_by: Mapping[str, Any] | None = None) -> dict[str, str]:
    """What a run is and what made it.

    Args:
        digest: of its data.
        made_by: as its record has it; None: this process.
    """
    made_by = provenance() if made_by is None else made_by
    found = {
        "mlflow.source.git.commit": made_by["git_commit"] or "",
        "git.dirty": str(made_by["git_dirty"]).lower(),
        "data.digest": digest,
        "data_set": run.dataset,
        "model": run.model_name,
        "variant": run.variant,
        "seed": str(run.seed),
        "scale": run.scale,
        "planted_data": str(is_planted(run)).lower(),
    }
    return found | ({"dvc.exp_name": made_by["dvc_experiment"]} if made_by["dvc_experiment"] else {})
