"""Runs as a table sees them: what a finished run leaves, without training."""

from pathlib import Path

import numpy as np

from rdfa.files import write_json
from rdfa.identity import paths
from rdfa.params import Composed

RECORD = {
    "parameters": 7,
    "epoch": 3,
    "steps": 100,
    "seconds": 50.0,
    "cpu_seconds": 25.0,
    "peak_memory_mib": 300,
    "test_looks": None,
}


def finish(root: Path, composed: Composed, average: float, draws: list[float] | None = None) -> None:
    """Write the metrics and the record of a run.

    Args:
        average: average mAP, and that at each threshold, in [0, 1].
        draws: the bootstrap's replicates; by default 50 around the average, the same deviations for every run.
    """
    where, tious = paths(composed.run, root), list(composed.run.evaluation.tious)
    if draws is None:
        draws = (average + np.random.default_rng(0).normal(scale=0.02, size=50)).tolist()
    bootstrap = {"replicates": len(draws), "seed": 0, "average_mAP": draws}
    metrics = {"run": where.folder.name, "average_mAP": average, "tiou": tious, "mAP": [average] * len(tious)}
    write_json(where.metrics, metrics | {"bootstrap": bootstrap})
    write_json(where.folder / "run.json", RECORD)
