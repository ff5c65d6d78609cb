"""The whole detector, and what it says."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rdfa.models.proposals.base import BaseFeature
from rdfa.models.proposals.car import CellConfidence, ContinuousConfidence, coordinates_of, gather_cells
from rdfa.models.proposals.cells import (
    drawn_segments,
    grid_segments,
    inside_cells,
    inside_segments,
    instantiated_segments,
    kept_cells,
    nearest_cells,
)
from rdfa.models.proposals.pem import ProposalEvaluation
from rdfa.models.proposals.rrm import RecurrentRefinement, refined
from rdfa.models.proposals.tem import TemporalEvaluation
from rdfa.schema import ProposalModel


class ProposalMaps(NamedTuple):
    """Boundaries of every step, confidences of every cell, and the segments that are asked for.

    Channel 0 of a confidence is the classification (tIoU above 0.9), channel 1 the tIoU itself (regression).
    """

    start: Tensor
    """(B, T) logits."""
    end: Tensor
    """(B, T) logits."""
    maps: tuple[Tensor, ...]
    """Before and after each of n refinements, n + 1 times (B, 2, D, T) logits."""
    valid: Tensor
    """(B, D, T) bool: the cell's segment ends inside the valid part."""
    mask: Tensor
    """(B, T) bool: the step is not padding."""
    features: Tensor
    """(B, C, D, T) of the cells, before the layers of the confidence."""
    segments: Tensor
    """(B, P, 2) grid steps: what training learns from and inference chooses from. The cells in the order d T + s,
    or RCL's continuous segments."""
    logits: tuple[Tensor, ...]
    """Of these, before and after each refinement, n + 1 times (B, 2, P)."""
    candidate: Tensor
    """(B, P) bool: the segment counts."""


class ProposalDetector(nn.Module):
    """BMN or G-TAD, plain or with RCL."""

    grid: Tensor
    kept: Tensor
    instances: Tensor | None

    def __init__(self, dimension: int, params: ProposalModel) -> None:
        """For features of C = `dimension` channels.

        Raises:
            ValueError: `base.groups` does not divide the dimension.
        """
        super().__init__()
        refine, width = params.refine, params.confidence.width
        size = (params.durations, params.steps)
        self.params = params
        self.share = (0, 1)
        """Which part of a batch these videos are, and of how many equal parts, as in `AffineDropPath`."""
        self.base = BaseFeature(dimension, params)
        self.boundaries = TemporalEvaluation(params)
        self.proposals = ProposalEvaluation(params)
        self.confidence = ContinuousConfidence(width, refine) if refine else CellConfidence(width)
        self.refinement = RecurrentRefinement(width, refine) if refine and refine.iterations else None
        self.register_buffer("grid", grid_segments(*size), persistent=False)
        self.register_buffer("kept", kept_cells(params.sampling, *size), persistent=False)
        continuous = refine is not None and refine.instances.kind != "grid"
        instances = instantiated_segments(refine.instances, *size) if refine and continuous else None
        self.register_buffer("instances", instances, persistent=False)

    def forward(self, features: Tensor, mask: Tensor) -> ProposalMaps:
        """Predict on a batch of windows.

        Args:
            features: (B, C, T), T as the parameters say: shorter videos are padded.
            mask: (B, T) bool, true where the step is not padding.

        Raises:
            ValueError: T is another one.
        """
        if features.shape[2] != self.params.steps:
            raise ValueError(f"a window of {features.shape[2]} steps; model.steps is {self.params.steps}")
        lengths = mask.sum(1)
        valid = inside_cells(lengths, self.params.durations, self.params.steps)
        base = self.base(features, mask)
        start, end = self.boundaries(base, mask)
        of_cells = self.proposals(base, mask, valid)
        unrefined = self._map(of_cells) * valid[:, None]
        changes = [] if self.refinement is None else self.refinement(of_cells, unrefined, valid)
        maps = refined(unrefined, changes)
        segments = self._continuous(lengths)
        asked = self._cells(maps, valid) if segments is None else self._anywhere(segments, of_cells, changes, lengths)
        return ProposalMaps(start, end, maps, valid, mask, of_cells, *asked)

    def _map(self, features: Tensor) -> Tensor:
        coordinates = coordinates_of(self.grid, torch.zeros_like(self.grid), self.params).flatten(0, 1)
        logits: Tensor = self.confidence(features.flatten(2), coordinates.expand(len(features), -1, -1))
        return logits.view(-1, 2, *self.grid.shape[:2])

    def _continuous(self, lengths: Tensor) -> Tensor | None:
        """The continuous segments that are asked for now, (B, P, 2), or None for the cells."""
        sampling = self.params.sampling
        if self.training:
            if sampling.kind != "scale_invariant":
                return None
            return drawn_segments(lengths, self.params.durations, sampling.coordinates, self.share)
        return None if self.instances is None else self.instances.expand(len(lengths), -1, -1)

    def _cells(self, maps: tuple[Tensor, ...], valid: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        segments = self.grid.flatten(0, 1).expand(valid.shape[0], -1, -1)
        return segments, tuple(each.flatten(2) for each in maps), (valid & self.kept).flatten(1)

    def _anywhere(
        self, segments: Tensor, features: Tensor, changes: list[Tensor], lengths: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """A continuous segment starts at its own confidence and is refined as its nearest cell is (ours)."""
        cells, relative = nearest_cells(segments, lengths, self.params.durations, self.params.steps)
        coordinates = coordinates_of(segments, relative, self.params)
        start = self.confidence(gather_cells(features, cells), coordinates)
        logits = refined(start, [gather_cells(change, cells) for change in changes])
        return segments, logits, inside_segments(segments, lengths)
