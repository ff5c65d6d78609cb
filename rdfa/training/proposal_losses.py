"""Losses of a proposal map: balanced cross-entropy of boundaries and confidences, balanced squared error of the tIoU.

Source: BMN (Lin et al. 2019), section 3.4; its public codes (OpenTAD, opentad/models/losses/balanced_bce_loss.py and
balanced_l2_loss.py). There, as many segments of middle and of low tIoU as there are of high tIoU are drawn at random;
ours is the expectation: all count, with the share that would be drawn as their weight, and the loss repeats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rdfa.models.proposals.detector import ProposalMaps
from rdfa.schema import ProposalModel
from rdfa.training.proposal_targets import ProposalTargets, best_tiou

OfBatch = Callable[[Sequence[float]], Sequence[float]]
"""From sums of this share of a batch to those of the whole batch."""


@dataclass(frozen=True)
class ProposalLosses:
    """The losses of one batch, or of one process's share of it, each already normalised by the whole batch."""

    total: Tensor
    boundary: Tensor
    classification: Tensor
    regression: Tensor
    positives: int
    """Segments above the tIoU for the classification, of the whole batch."""

    @property
    def terms(self) -> dict[str, Tensor]:
        """What the total is made of, by the names of the history's columns."""
        return {"boundary": self.boundary, "classification": self.classification, "regression": self.regression}


def proposal_losses(
    maps: ProposalMaps,
    targets: ProposalTargets,
    params: ProposalModel,
    of_batch: OfBatch = lambda own: own,
) -> ProposalLosses:
    """All losses of a batch.

    Args:
        maps: the detector's output; its `segments` and `logits` are trained, not its cells.
        of_batch: where processes share a batch. All call it the same number of times.
    """
    loss, mask, count = params.proposal_loss, maps.mask, maps.candidate
    tiou = best_tiou(maps.segments, targets.segments)[count]
    starts, ends = (near[mask] > loss.boundary_overlap for near in (targets.start, targets.end))
    positive = tiou > loss.positive
    groups = (tiou > loss.high, (tiou <= loss.high) & (tiou > loss.low), tiou <= loss.low)
    counted = (starts, torch.ones_like(starts), ends, positive, torch.ones_like(positive), *groups)
    sums = of_batch([float(each.sum()) for each in counted])
    boundary = _balanced_cross_entropy(_wide(maps.start)[mask], starts, sums[0], sums[1])
    boundary = boundary + _balanced_cross_entropy(_wide(maps.end)[mask], ends, sums[2], sums[1])
    weights = _group_weights(groups, sums[5:])
    total_weight = sum(share * size for share, size in zip(_shares(sums[5:]), sums[5:], strict=True))
    classification, regression = boundary.new_zeros(()), boundary.new_zeros(())
    for logits, factor in zip(maps.logits, _factors(params, len(maps.logits)), strict=True):
        if factor == 0:
            continue
        judged, scored = (_wide(logits)[:, channel][count] for channel in (0, 1))
        classification = classification + factor * _balanced_cross_entropy(judged, positive, sums[3], sums[4])
        error = (weights * (torch.sigmoid(scored) - tiou) ** 2).sum() / max(total_weight, 1e-8)
        regression = regression + factor * error
    total = (
        loss.boundary_weight * boundary
        + loss.classification_weight * classification
        + loss.regression_weight * regression
    )
    return ProposalLosses(total, boundary.detach(), classification.detach(), regression.detach(), int(sums[3]))


def _balanced_cross_entropy(logits: Tensor, positive: Tensor, positives: float, entries: float) -> Tensor:
    """Binary cross-entropy in which positives and negatives of the whole batch weigh one half each.

    Args:
        logits, positive: (n,) of this share.  positives, entries: of the whole batch. Without both kinds: the mean.
    """
    each = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")
    if 0 < positives < entries:
        each = each * torch.where(positive, 0.5 / positives, 0.5 / (entries - positives))
        return each.sum()
    return each.sum() / max(entries, 1.0)


def _shares(sizes: Sequence[float]) -> list[float]:
    """Share of each group (high, middle, low) that counts: as many of each as of high ones; all, without these."""
    high = sizes[0]
    return [min(1.0, high / size) if high and size else 1.0 for size in sizes]


def _group_weights(groups: Sequence[Tensor], sizes: Sequence[float]) -> Tensor:
    weights = [group * share for group, share in zip(groups, _shares(sizes), strict=True)]
    return torch.stack(weights).sum(0)


def _factors(params: ProposalModel, count: int) -> list[float]:
    """What the maps before and after each refinement weigh (ours: the paper is silent).

    The unrefined map weighs 1 and the refined ones 1 together, however many there are. No gradient passes from a
    refined map to the one before, so that the unrefined map's weight is all that trains the confidence layers.
    """
    refine, refinements = params.refine, count - 1
    if refine is None or refinements == 0:
        return [1.0]
    if refine.supervise == "final":
        return [1.0] + [0.0] * (refinements - 1) + [1.0]
    powers = [refine.gamma ** (refinements - index) for index in range(1, count)]
    return [1.0] + [power / sum(powers) for power in powers]


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
