"""Optimisation, and what is looked at and kept on the way."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rdfa.schema.section import Fraction, NotNegative, NotNegativeFloat, Positive, PositiveFloat, Section


class Loss(Section):
    """Focal and DIoU losses and their normaliser."""

    normalizer: Literal["constant", "running"]
    """constant: (1 - m) * initial + m * positives of this batch (released). running: ActionFormer's running mean."""
    normalizer_initial: PositiveFloat
    normalizer_momentum: Fraction
    """Weight of the old value, 0.9 in both."""
    regression_weight: PositiveFloat
    label_smoothing: Fraction
    focal_alpha: Fraction
    focal_gamma: NotNegativeFloat


class Average(Section):
    """Exponential moving average of the weights."""

    decay: Annotated[float, Field(ge=0, lt=1)]
    ramp: bool
    """Raise the decay as (1 + t) / (10 + t) up to `decay`; off: constant, as the released code."""


class Training(Section):
    """Optimisation, and what is looked at and kept on the way."""

    epochs: Positive
    """Epochs that are run."""
    schedule_epochs: Positive
    """Epochs that the cosine spans, warm-up included (released: 50 while 49 are run)."""
    warmup_epochs: NotNegative
    learning_rate: PositiveFloat
    min_learning_rate: NotNegativeFloat
    weight_decay: NotNegativeFloat
    decay_state: bool
    """Weight decay also on A_log and D, as the released code does by oversight."""
    batch_size: Positive
    gradient_clip: NotNegativeFloat
    """Largest norm of the gradient; 0 turns clipping off."""
    center_radius: NotNegativeFloat
    """Centre sampling radius in units of the level's stride; 0: every point inside the segment."""
    loss: Loss
    average: Average
    precision: Literal["float32", "tfloat32", "bfloat16", "float16"]
    """bfloat16 and float16: autocast type; scans keep float32 states; float16 needs CUDA. tfloat32: float32 whose
    products and convolutions a GPU may compute in TF32; float32 never does."""
    fused_optimizer: bool
    """AdamW's update of all weights as one kernel; rounds differently."""
    compile: bool
    """Train the detector through torch.compile; rounds differently. On a CPU it needs a C++ compiler."""
    test_looks_from: Positive | None
    """From this epoch on the averaged weights are evaluated on the test split after each epoch, and those of the best
    look are kept beside the last epoch's, which nothing of this changes (released: 25); null: never."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_epochs >= self.schedule_epochs:
            raise ValueError("warmup_epochs must be smaller than schedule_epochs")
        if self.test_looks_from is not None and self.test_looks_from > self.epochs:
            raise ValueError(
                f"training.test_looks_from {self.test_looks_from} lies beyond the last epoch (training.epochs "
                f"{self.epochs}): lower it, or set it to null"
            )
        return self
