"""`rdfa evaluate RUN`: metrics of a run's detections."""

import csv
from pathlib import Path

from rdfa.data.detections import read_detections
from rdfa.errors import RdfaError
from rdfa.evaluation.judgement import judge
from rdfa.files import read_json, write_json
from rdfa.identity import HISTORY, PARAMS_YAML, RUN_JSON, Paths, keys, paths, run_name
from rdfa.params import flatten
from rdfa.schema import Run
from rdfa.stages.opened import ground_truth, is_planted, read_manifest, refuse_other_data
from rdfa.stages.tags import tags
from rdfa.tracking import Store, tolerated


def evaluate_stage(run: Run, root: Path, tracked: bool = True) -> Path:
    """Evaluate a run's detections; returns the path of the metrics."""
    where = paths(run, root)
    refuse_other_data(run, where, read_manifest(run, where))
    if not where.detections.exists():
        raise RdfaError(f"{where.detections}: no such file; run: rdfa detect {run_name(run)}")
    judged = judge(ground_truth(run, where), read_detections(where.detections), run.evaluation)
    about = {"run": where.folder.name, "data_set": run.dataset, "scale": run.scale, "planted_data": is_planted(run)}
    write_json(where.metrics, about | judged.as_json())
    if tracked:
        with tolerated():
            store = Store(root)
            run_id = store.find(keys(run).train) or import_run(store, run, where)
            result = judged.precision
            named = {f"mAP_{tiou:g}": value for tiou, value in zip(result.tious, result.mean, strict=True)}
            store.log_results(run_id, named | {"mAP_average": result.average}, [where.metrics, where.detections])
    return where.metrics


def import_run(store: Store, run: Run, where: Paths) -> str:
    """Rebuild the MLflow run of a result that was made elsewhere; returns its id."""
    record = read_json(where.folder / RUN_JSON)
    run_id = store.start(run_name(run), keys(run).train, flatten(run), tags(run, record["data_digest"]))
    with (where.folder / HISTORY).open(newline="") as file:
        for row in csv.DictReader(file):
            store.log_epoch(run_id, {name: float(value) for name, value in row.items() if value})
    store.log_results(run_id, {}, [where.folder / PARAMS_YAML, where.folder / RUN_JSON])
    store.end(run_id, "FINISHED")
    return run_id
