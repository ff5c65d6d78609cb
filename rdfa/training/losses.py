"""Focal and DIoU losses, and how their sums are normalised."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rdfa.models.detector import Predictions
from rdfa.schema import Loss

_EPSILON = 1e-8


@dataclass(frozen=True)
class Losses:
    """The losses of one batch, or of one process's share of it, each already normalised."""

    total: Tensor
    classification: Tensor
    regression: Tensor
    positives: int
    """Of the whole batch."""

    @property
    def terms(self) -> dict[str, Tensor]:
        """What the total is made of, by the names of the history's columns."""
        return {"classification": self.classification, "regression": self.regression}


class Normalizer:
    """What the summed losses are divided by.

    running    ActionFormer: n <- m * n + (1 - m) * max(positives, 1), from `normalizer_initial`.
    constant   released RDFA-S6: the same from `normalizer_initial` at every step, so that nothing accumulates.
    """

    def __init__(self, params: Loss) -> None:
        self.params = params
        self.value = params.normalizer_initial

    def update(self, positives: int) -> float:
        """The divisor for a batch with this many positive points."""
        start = self.params.normalizer_initial if self.params.normalizer == "constant" else self.value
        momentum = self.params.normalizer_momentum
        self.value = momentum * start + (1 - momentum) * max(positives, 1)
        return self.value


def focal_loss(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sum of the sigmoid focal loss (Lin et al., ICCV 2017) over all entries; same shapes."""
    probability = torch.sigmoid(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    miss = probability + targets - 2 * probability * targets
    loss = cross_entropy * miss**gamma
    if alpha > 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return loss.sum()


def diou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Sum of the 1-D distance-IoU loss (Zheng et al., AAAI 2020) between (n, 2) distances to start and end."""
    left, right = predicted.unbind(-1)
    left_target, right_target = target.unbind(-1)
    overlap = torch.minimum(left, left_target) + torch.minimum(right, right_target)
    union = left + right + left_target + right_target - overlap
    hull = torch.maximum(left, left_target) + torch.maximum(right, right_target)
    centers = 0.5 * (right - left - right_target + left_target)
    iou = overlap / union.clamp(min=_EPSILON)
    return (1 - iou + (centers / hull.clamp(min=_EPSILON)) ** 2).sum()


def detection_losses(
    predictions: Predictions,
    class_targets: Tensor,
    offset_targets: Tensor,
    normalizer: Normalizer,
    params: Loss,
    of_batch: Callable[[int], int] = lambda own: own,
) -> Losses:
    """Both losses of a batch (released code `losses`).

    Args:
        predictions: the detector's output.
        class_targets: (B, P, K), offset_targets: (B, P, 2), from `assign`; P counts the points of all levels.
        of_batch: from the positive points of this share to those of the whole batch, where processes share one.
    """
    logits, offsets = (_at_least_float32(torch.cat(part, dim=1)) for part in predictions[:2])
    valid = torch.cat(predictions.masks, dim=1)
    positive = (class_targets.sum(2) > 0) & valid
    positives = of_batch(int(positive.sum()))
    divisor = normalizer.update(positives)
    smoothing, classes = params.label_smoothing, class_targets.shape[2]
    smooth = class_targets[valid] * (1 - smoothing) + smoothing / (classes + 1)
    classification = focal_loss(logits[valid], smooth, params.focal_alpha, params.focal_gamma) / divisor
    regression = diou_loss(offsets[positive], offset_targets[positive]) / divisor
    total = classification + params.regression_weight * regression
    return Losses(total, classification.detach(), regression.detach(), positives)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
