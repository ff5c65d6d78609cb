"""`rdfa evaluate RUN`: metrics of a run's detections."""

import math
from pathlib import Path

from rdfa.data.detections import read_detections
from rdfa.errors import RdfaError
from rdfa.evaluation.average_precision import mean_average_precision
from rdfa.evaluation.bootstrap import draw_videos, replicate_average
from rdfa.files import write_json
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
    truth, detections, judged = ground_truth(run, where), read_detections(where.detections), run.evaluation
    result = mean_average_precision(truth, detections, judged.tious, judged.protocol)
    draws = draw_videos(len(truth.videos), judged.bootstrap.replicates, judged.bootstrap.seed)
    replicates = replicate_average(truth, detections, judged.tious, judged.protocol, draws)
    about = {"run": where.folder.name, "data_set": run.dataset, "scale": run.scale, "planted_data": is_planted(run)}
    values = [None if math.isnan(value) else round(value, 6) for value in replicates.tolist()]
    drawn = {"bootstrap": judged.bootstrap.model_dump() | {"average_mAP": values}}
    write_json(where.metrics, about | result.as_json() | drawn)
    if tracked:
        with tolerated():
            store = Store(root)
            run_id = store.find(keys(run).train) or import_run(store, where.folder, root)
            log_results(store, run_id, where)
    return where.metrics
