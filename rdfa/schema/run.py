"""Everything that a run reads."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from rdfa.schema.inference import Detection, Evaluation, Runtime
from rdfa.schema.model import Model
from rdfa.schema.proposal_model import ProposalModel
from rdfa.schema.section import Line, Name, Positive, Section, Seed
from rdfa.schema.source import Features, Source, Windows
from rdfa.schema.training import Training


class Run(Section):
    """Everything that a run reads: data set x model x variant x seed x scale, resolved."""

    dataset: Name
    model_name: Name
    variant: Name
    scale: Name
    seed: Seed
    train_subset: Line
    test_subset: Line
    num_classes: Positive
    """Classes of the data set."""
    source: Source
    features: Features
    windows: Windows
    model: Annotated[Model | ProposalModel, Field(discriminator="family")]
    training: Training
    detection: Detection
    evaluation: Evaluation
    runtime: Runtime

    @property
    def names_classes(self) -> bool:
        """Whether the detector tells classes apart; else it finds actions, which an external classifier may name."""
        return isinstance(self.model, Model) and not self.detection.external_classes

    @property
    def head_classes(self) -> int:
        """Classes of the detector's head."""
        return self.num_classes if self.names_classes else 1

    @property
    def least_length(self) -> int:
        """Steps that shorter input is padded to: the window where the detector sees no other length, or where padding
        leaks into the result (the released code pads so)."""
        filled = isinstance(self.model, ProposalModel) or self.model.padding == "leaky"
        return self.windows.max_length if filled else 1

    @model_validator(mode="after")
    def _windows_fit(self) -> Self:
        length = self.windows.max_length
        if length % self.model.coarsest:
            raise ValueError(
                f"windows.max_length {length} is not a multiple of the coarsest stride {self.model.coarsest}"
            )
        if isinstance(self.model, ProposalModel):
            if self.model.steps != length:
                raise ValueError(f"model.steps {self.model.steps} is not windows.max_length {length}")
            if not self.windows.resample and self.windows.overlap is None:
                raise ValueError(
                    f"model.family {self.model.family!r} sees windows of {length} steps only: set windows.resample to "
                    "true, or windows.overlap to the share of a window that the next one sees too"
                )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not (self.names_classes or self.detection.external_classes or self.evaluation.agnostic):
            raise ValueError(
                f"model.family {self.model.family!r} finds actions and does not name them: set "
                "detection.external_classes above 0, or evaluation.agnostic to true"
            )
        if self.evaluation.agnostic and self.detection.external_classes:
            raise ValueError("evaluation.agnostic means nothing with detection.external_classes above 0: set it to 0")
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
