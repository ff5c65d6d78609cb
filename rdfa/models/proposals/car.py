"""RCL's continuous confidence (CAR): any segment, from the nearest cell's features and two coordinate channels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdfa.models.proposals.cells import nearest_cells
from rdfa.schema import ProposalModel, Rcl


class ContinuousConfidence(nn.Module):
    """Two layers on features and coordinates of a segment (supplement, Figure 3; their number is ours)."""

    def __init__(self, params: ProposalModel, refine: Rcl) -> None:
        super().__init__()
        self.durations, self.steps = params.durations, params.steps
        self.absolute = refine.coordinates == "absolute"
        self.hidden = nn.Conv1d(params.confidence.width + 2, refine.hidden_layer, 1)
        self.output = nn.Conv1d(refine.hidden_layer, 2, 1)

    def forward(self, features: Tensor, segments: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Confidences of any segments.

        Args:
            features: of the cells, (B, C, D, T).  segments: (B, P, 2) grid steps.  lengths: (B,) valid steps.

        Returns:
            Logits (B, 2, P), and the flat index of the nearest cell (B, P).
        """
        cells, relative = nearest_cells(segments, lengths, self.durations, self.steps)
        coordinates = self._absolute(segments) if self.absolute else relative
        return self._logits(gather_cells(features, cells), coordinates), cells

    def of_cells(self, features: Tensor, segments: Tensor) -> Tensor:
        """The same for the segments of the cells themselves: (B, C, D, T) and (D, T, 2) to (B, 2, D, T)."""
        flat = segments.flatten(0, 1)
        coordinates = self._absolute(flat) if self.absolute else torch.zeros_like(flat)
        logits = self._logits(features.flatten(2), coordinates.expand(features.shape[0], -1, -1))
        return logits.view(-1, 2, self.durations, self.steps)

    def _absolute(self, segments: Tensor) -> Tensor:
        centre, duration = segments.mean(-1), segments[..., 1] - segments[..., 0]
        return torch.stack([centre / self.steps, duration / self.durations], dim=-1)

    def _logits(self, features: Tensor, coordinates: Tensor) -> Tensor:
        joined = torch.cat([features, coordinates.transpose(1, 2).to(features.dtype)], dim=1)
        logits: Tensor = self.output(F.relu(self.hidden(joined)))
        return logits


def gather_cells(x: Tensor, cells: Tensor) -> Tensor:
    """Values of cells: (B, C, D, T) and flat indices (B, P) to (B, C, P)."""
    return x.flatten(2).gather(2, cells[:, None].expand(-1, x.shape[1], -1))
