"""The detector: backbone, neck and heads, built from parameters alone; and how any family's detector is built."""

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rdfa.models.backbone import Backbone, StemBlock
from rdfa.models.heads import ClassHead, Neck, OffsetHead
from rdfa.schema import Model, ProposalModel, Run


class Predictions(NamedTuple):
    """What the heads say on each pyramid level l; tuples over levels, fine to coarse."""

    logits: tuple[Tensor, ...]
    """(B, T / 2^l, K) class logits."""
    offsets: tuple[Tensor, ...]
    """(B, T / 2^l, 2) distances to start and end, in units of the level's stride."""
    masks: tuple[Tensor, ...]
    """(B, T / 2^l) bool, true where the step is not padding."""


class Detector(nn.Module):
    """RDFA-S6: one-stage, anchor-free detector on a temporal feature pyramid (paper section 3)."""

    def __init__(self, dimension: int, classes: int, params: Model) -> None:
        super().__init__()
        levels, masked = len(params.regression_ranges), params.padding == "masked"
        self.backbone = Backbone(dimension, params)
        self.neck = Neck(params.width, levels, masked)
        self.class_head = ClassHead(params.width, classes, params.heads, masked)
        self.offset_head = OffsetHead(params.width, levels, params.heads, masked)

    def forward(self, features: Tensor, mask: Tensor) -> Predictions:
        """Predict on a batch.

        Args:
            features: (B, C, T), T a multiple of the coarsest level's stride.
            mask: (B, T) bool, true where the step is not padding.
        """
        levels, masks = self.backbone(features, mask)
        pyramid = self.neck(levels, masks)
        return Predictions(
            tuple(self.class_head(pyramid, masks)), tuple(self.offset_head(pyramid, masks)), tuple(masks)
        )


def network(run: Run) -> nn.Module:
    """The detector of a run's family, with whatever weights its modules draw."""
    if isinstance(run.model, ProposalModel):
        from rdfa.models.proposals.detector import ProposalDetector

        return ProposalDetector(run.features.dimension, run.model)
    return Detector(run.features.dimension, run.head_classes, run.model)


def build(run: Run) -> nn.Module:
    """The detector of a run, initialised from the run's seed.

    Each module draws from a generator of its own, seeded by the run's seed and the module's name: runs that differ in
    one module start from the same weights in all others, so that ablations are paired.
    """
    with torch.random.fork_rng(devices=[]):
        model = network(run)
        for name, module in reversed(list(model.named_modules())):  # parts first: their owners have the last word
            if callable(reset := getattr(module, "reset_parameters", None)):
                torch.manual_seed(_module_seed(run.seed, name))
                reset()
    for stem in model.modules():
        if isinstance(stem, StemBlock):
            stem.checkpointed = run.runtime.checkpoint_recurrence
    return model


def _module_seed(seed: int, name: str) -> int:
    """32 bits, as many as torch's generator takes."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "big")


def take_share(model: nn.Module, part: int, parts: int) -> None:
    """Tell the modules of a model that draw at random (those with a `share`) which of `parts` equal parts of every
    batch they see, so that their draws are the batch's."""
    for module in model.modules():
        if hasattr(module, "share"):
            module.share = (part, parts)  # type: ignore[assignment]


def count_parameters(model: nn.Module) -> int:
    """Trained numbers in a model."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
