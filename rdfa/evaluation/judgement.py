"""What a run's detections are worth by its parameters: mAP, how far it depends on the videos; recall, sensitivity."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rdfa.data.annotations import Annotations
from rdfa.data.detections import UNNAMED, Detections
from rdfa.evaluation.average_precision import MeanAveragePrecision, mean_average_precision
from rdfa.evaluation.bootstrap import Floats, draw_videos, replicate_average
from rdfa.evaluation.diagnosis import Diagnosis, diagnose
from rdfa.evaluation.diagnosis.characteristics import PRESETS
from rdfa.evaluation.proposals import AverageRecall, average_recall
from rdfa.schema import Evaluation


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The metrics of one run."""

    params: Evaluation
    precision: MeanAveragePrecision
    replicates: Floats
    """Average mAP of each draw of the videos."""
    recall: AverageRecall | None
    diagnosis: Diagnosis | None

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values; fractions, not per cent."""
        drawn = [None if math.isnan(value) else round(value, 6) for value in self.replicates.tolist()]
        found = self.precision.as_json() | {"agnostic": self.params.agnostic}
        found["bootstrap"] = self.params.bootstrap.model_dump() | {"average_mAP": drawn}
        if self.recall is not None and self.params.recall is not None:
            numbers = {f"AR@{number}": self.recall.at(number) for number in self.params.recall.numbers}
            found["average_recall"] = {"tiou": self.recall.tious.tolist(), "AUC": self.recall.auc, **numbers}
        if self.diagnosis is not None and self.params.sensitivity is not None:
            name = self.params.sensitivity.characteristic
            by_name = {each.name: each.as_json() for each in self.diagnosis.characteristics}
            found["sensitivity"] = {"characteristic": name, "average_mAP_N": self.diagnosis.average} | by_name[name]
        return found


def judge(ground_truth: Annotations, detections: Detections, params: Evaluation) -> Judgement:
    """Evaluate detections as a run asks.

    Raises:
        RdfaError: no ground truth, or bins that do not cover it.
    """
    ground_truth, detections = as_judged(ground_truth, detections, params)
    recall, diagnosis = None, None
    if params.recall is not None:
        most = max(params.recall.numbers)
        recall = average_recall(ground_truth, segments_once(detections), params.recall.tious, most)
    if params.sensitivity is not None:
        diagnosis = diagnose(ground_truth, detections, params.tious, PRESETS[params.sensitivity.bins])
    draws = draw_videos(len(ground_truth.videos), params.bootstrap.replicates, params.bootstrap.seed)
    return Judgement(
        params=params,
        precision=mean_average_precision(ground_truth, detections, params.tious, params.protocol),
        replicates=replicate_average(ground_truth, detections, params.tious, params.protocol, draws),
        recall=recall,
        diagnosis=diagnosis,
    )


def as_judged(ground_truth: Annotations, detections: Detections, params: Evaluation) -> tuple[Annotations, Detections]:
    """Both as they are, or with one class for all where labels do not count."""
    if not params.agnostic:
        return ground_truth, detections
    videos = tuple(replace(video, labels=(UNNAMED,) * len(video.labels)) for video in ground_truth.videos)
    nothing = np.zeros_like(detections.label_index)
    return Annotations(videos, (UNNAMED,)), replace(detections, label_index=nothing, classes=(UNNAMED,))


def segments_once(detections: Detections) -> Detections:
    """Detections without those that another one of the video, with the same bounds and at least its score, repeats.

    An external classifier gives each segment several labels: as proposals these are one.
    """
    order = np.lexsort((-detections.scores, *detections.segments.T[::-1], detections.video_index))
    rows = np.column_stack([detections.video_index, detections.segments])[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    kept = np.sort(order[first])
    columns = ("video_index", "segments", "scores", "label_index")
    return replace(detections, **{name: getattr(detections, name)[kept] for name in columns})
