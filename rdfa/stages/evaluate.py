"""`rdfa evaluate RUN`: metrics of a run's detections."""

from pathlib import Path

from rdfa.data.detections import read_detections
from rdfa.errors import RdfaError
from rdfa.evaluation.judgement import judge
from rdfa.files import write_sealed
from rdfa.identity import keys, paths, run_name
from rdfa.schema import Run
from rdfa.stages.logged import import_run, log_results
from rdfa.stages.opened import ground_truth, is_planted, read_manifest, refuse_other_data
from rdfa.tracking import Store, tolerated


def evaluate_stage(run: Run, root: Path, tracked: bool = True) -> Path:
    """Evaluate a run's detections; returns the path of the metrics."""
    where = paths(run, root)
    refuse_other_data(run, where, read_manifest(run, where))
    if not where.detections.exists():
        raise RdfaError(f"{where.detections}: no such file; run: rdfa detect {run_name(run)}")
    judged = judge(ground_truth(run, where), read_detections(where.detections), run.evaluation)
    about = {"run": where.folder.name, "data_set": run.dataset, "scale": run.scale, "planted_data": is_planted(run)}
    write_sealed(where.metrics, about | judged.as_json())
    if tracked:
        with tolerated():
            store = Store(root)
            run_id = store.find(keys(run).train) or import_run(store, where.folder, root)
            log_results(store, run_id, where)
    return where.metrics
