"""The tags by which a run is found in MLflow."""

from rdfa.provenance import provenance
from rdfa.schema import Run
from rdfa.stages.opened import is_planted


def tags(run: Run, digest: str) -> dict[str, str]:
    """What a run is and what made it; `digest` is that of its data."""
    made_by = provenance()
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
