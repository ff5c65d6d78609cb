"""RCL's continuous confidence (CAR): any segment, from the nearest cell's features and two coordinate channels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdfa.schema import ProposalModel, Rcl


class ContinuousConfidence(nn.Module):
    """Two layers on features and coordinates of a segment (supplement, Figure 3; their number is ours)."""

    def __init__(self, width: int, params: Rcl) -> None:
        super().__init__()
        self.hidden = nn.Conv1d(width + 2, params.hidden_layer, 1)
        self.output = nn.Conv1d(params.hidden_layer, 2, 1)

    def forward(self, features: Tensor, coordinates: Tensor) -> Tensor:
        """Features (B, C, P) of the nearest cells and coordinates (B, P, 2) to logits (B, 2, P)."""
        joined = torch.cat([features, coordinates.transpose(1, 2).to(features.dtype)], dim=1)
        logits: Tensor = self.output(F.relu(self.hidden(joined)))
        return logits


class CellConfidence(nn.Module):
    """BMN's and G-TAD's last layer: the confidence of a cell from its features alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.output = nn.Conv1d(width, 2, 1)

    def forward(self, features: Tensor, coordinates: Tensor) -> Tensor:
        """Features (B, C, P) to logits (B, 2, P), wherever the cells are."""
        logits: Tensor = self.output(features)
        return logits


def coordinates_of(segments: Tensor, relative: Tensor, params: ProposalModel) -> Tensor:
    """The two coordinate channels: (..., 2).

    Args:
        segments: (..., 2) grid steps.
        relative: (..., 2) centre and duration relative to the nearest cell's, in steps (`nearest_cells`).
    """
    if params.refine is None or params.refine.coordinates == "offset":
        return relative
    centre, duration = segments.mean(-1), segments[..., 1] - segments[..., 0]
    return torch.stack([centre / params.steps, duration / params.durations], dim=-1)


def gather_cells(x: Tensor, cells: Tensor) -> Tensor:
    """Values of cells: (B, C, D, T) and flat indices (B, P) to (B, C, P)."""
    return x.flatten(2).gather(2, cells[:, None].expand(-1, x.shape[1], -1))
