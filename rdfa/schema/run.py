"""Everything that a run reads."""

from typing import Self

from pydantic import model_validator

from rdfa.schema.inference import Detection, Evaluation, Runtime
from rdfa.schema.model import Model
from rdfa.schema.section import Name, NotNegative, Positive, Section
from rdfa.schema.source import Features, Source, Windows
from rdfa.schema.training import Training


class Run(Section):
    """Everything that a run reads: data set x model x variant x seed x scale, resolved."""

    dataset: Name
    model_name: Name
    variant: Name
    scale: Name
    seed: NotNegative
    train_subset: str
    test_subset: str
    num_classes: Positive
    """Classes of the data set."""
    source: Source
    features: Features
    windows: Windows
    model: Model
    training: Training
    detection: Detection
    evaluation: Evaluation
    runtime: Runtime

    @property
    def head_classes(self) -> int:
        """Classes of the detector's head: one ("action") where an external classifier names them."""
        return 1 if self.detection.external_classes else self.num_classes

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        coarsest = 2 ** (len(self.model.regression_ranges) - 1)
        if self.windows.max_length % coarsest:
            raise ValueError(
                f"windows.max_length {self.windows.max_length} is not a multiple of the coarsest stride {coarsest}"
            )
        if self.detection.weights == "best_test" and self.training.test_looks_from is None:
            raise ValueError(
                "detection.weights 'best_test' needs a look at the test split: set training.test_looks_from"
            )
        if self.detection.external_classes > self.num_classes:
            raise ValueError("detection.external_classes exceeds num_classes")
        if self.detection.external_classes and self.source.kind in ("hapt", "own"):
            raise ValueError(
                f"detection.external_classes needs class scores of the videos, and source.kind {self.source.kind!r} "
                "brings none: set it to 0"
            )
        return self
