"""What a detector is trained on, by family: from its output and a batch's annotations to the batch's losses."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from rdfa.data.windows import Batch
from rdfa.models.detector import Predictions
from rdfa.models.pyramid import pyramid_points
from rdfa.schema import ProposalModel, Run
from rdfa.training.losses import Losses, Normalizer, detection_losses
from rdfa.training.targets import assign

OfBatch = Callable[[Sequence[float]], Sequence[float]]


class Measured(Protocol):
    """The losses of one batch, or of one process's share of it, each already normalised by the whole batch."""

    @property
    def total(self) -> Tensor:
        """What is minimised."""

    @property
    def terms(self) -> dict[str, Tensor]:
        """What the total is made of, by the names of the history's columns."""

    @property
    def positives(self) -> int:
        """Points or segments of an instance, of the whole batch."""


class Criterion(Protocol):
    """The losses of a family of detectors."""

    carried: float
    """What goes from one step to the next; kept with the training's state."""

    def __call__(self, output: Any, batch: Batch, of_batch: OfBatch) -> Measured:
        """The losses of a batch, or of one process's share of it.

        Args:
            output: what the detector says of the batch, on the detector's device.
            of_batch: from what this share counts to the counts of the whole batch, where processes share one.
        """


def criterion(run: Run) -> Criterion:
    """What a run is trained on."""
    if isinstance(run.model, ProposalModel):
        from rdfa.training.proposal_criterion import ProposalCriterion

        return ProposalCriterion(run)
    return PointCriterion(run)


class PointCriterion:
    """Focal and DIoU losses on the points of a pyramid."""

    def __init__(self, run: Run) -> None:
        assert not isinstance(run.model, ProposalModel)
        self.ranges, self.classes = run.model.regression_ranges, run.head_classes
        self.radius, self.params = run.training.center_radius, run.training.loss
        self.normalizer = Normalizer(self.params)

    @property
    def carried(self) -> float:
        """The running normaliser's value."""
        return self.normalizer.value

    @carried.setter
    def carried(self, value: float) -> None:
        self.normalizer.value = value

    def __call__(self, output: Predictions, batch: Batch, of_batch: OfBatch) -> Losses:
        """See `Criterion`."""
        device = output.logits[0].device
        points = torch.cat(pyramid_points(batch.features.shape[2], self.ranges))
        targets = [assign(points, each.segments, each.labels, self.classes, self.radius) for each in batch.windows]
        classes, offsets = (torch.stack(parts).to(device) for parts in zip(*targets, strict=True))
        whole = partial(_one, of_batch)
        return detection_losses(output, classes, offsets, self.normalizer, self.params, whole)


def _one(of_batch: OfBatch, count: int) -> int:
    return int(of_batch([count])[0])
