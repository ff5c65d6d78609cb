"""Detection, its evaluation, and where and with what a run computes."""

from typing import Annotated, Literal

from pydantic import Field

from rdfa.schema.section import Fraction, NotNegative, NotNegativeFloat, Positive, PositiveFloat, Section


class Detection(Section):
    """Decoding and suppression."""

    weights: Literal["averaged", "plain", "best_test"]
    """averaged, plain: the last epoch's. best_test: the averaged ones of the best look at the test split
    (`Training.test_looks_from`), as the released procedure reports; selected on the split that they are judged by."""
    score_threshold: Fraction
    """Class scores below it are not decoded."""
    top_k: Positive
    """Candidates per pyramid level that are decoded."""
    min_duration: NotNegativeFloat
    """Shortest segment in grid steps."""
    nms: Literal["gaussian", "linear", "hard", "none"]
    sigma: PositiveFloat
    tiou: Fraction
    """tIoU threshold of hard and linear NMS."""
    min_score: Fraction
    max_segments: Positive
    """Detections kept per video."""
    multiclass: bool
    """NMS within each class; otherwise over all classes together."""
    voting: Fraction
    """tIoU from which neighbours vote on a boundary; 0 turns voting off. Unused when multiclass (released)."""
    voting_weight: Literal["score", "score_times_tiou"]
    external_classes: NotNegative
    """Top classes of the video-level classifier that each segment is given; 0: the head classifies."""


class Recall(Section):
    """AR@AN: recall over an average number of segments per video, averaged over tIoUs (ActivityNet's proposal task)."""

    tious: Annotated[tuple[Fraction, ...], Field(min_length=1)]
    numbers: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """AN."""


class Sensitivity(Section):
    """Average-mAP_N by a characteristic of the instances (DETAD's diagnosis)."""

    characteristic: Literal["coverage", "length", "instances"]
    bins: Literal["activitynet", "thumos14", "quantiles"]
    """DETAD's edges for a data set, or five bins with about as many instances each."""


class Bootstrap(Section):
    """Which draws of the test videos the intervals beside an average mAP come from."""

    replicates: Positive
    seed: NotNegative
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Share of the draws that an interval holds."""


class Evaluation(Section):
    """How detections are judged."""

    protocol: Literal["activitynet", "thumos14"]
    tious: Annotated[tuple[Fraction, ...], Field(min_length=1)]
    agnostic: bool
    """Labels do not count: every instance and every detection is an "action"."""
    recall: Recall | None
    """Average recall of the segments, whatever their labels, beside the mAP."""
    sensitivity: Sensitivity | None
    """How the normalised mAP depends on the kind of instance, beside the mAP."""
    bootstrap: Bootstrap


class Runtime(Section):
    """Where and with what a run computes: not part of a run's identity."""

    device: Literal["auto", "cpu", "cuda"]
    threads: Positive
    """CPU threads of one job, all its processes together."""
    workers: NotNegative
    """Processes that read features, for each training process; 0 reads in the training process."""
    checkpoint_recurrence: bool
    """Training recomputes each iteration of the stem in the backward pass instead of keeping what it needs: memory of
    one iteration instead of r, one more forward pass of the stem, the same gradients to the bit."""
    gpus: NotNegative
    """GPUs that a training job reserves with Snakemake; from 2 on, torchrun starts a process for each, which share
    every batch."""
    memory_mb: Positive
    minutes: Positive
