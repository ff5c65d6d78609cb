"""From base features to a feature of every cell (BMN's proposal evaluation module up to its last layer)."""

from torch import Tensor, nn
from torch.nn import functional as F

from rdfa.models.proposals.boundary_matching import SampledConvolution, grid_interpolation, samples_of
from rdfa.models.proposals.sgalign import SubGraphAlignment
from rdfa.schema import BoundaryMatching, ProposalModel


class BoundaryMatchingAlignment(nn.Module):
    """A convolution to the sampled channels, then BMN's samples of every cell."""

    def __init__(self, params: ProposalModel, alignment: BoundaryMatching) -> None:
        super().__init__()
        self.reduce = nn.Conv1d(params.base.width, alignment.width, 3, padding=1)
        rows = grid_interpolation(alignment, params.durations, params.steps)
        outputs = params.confidence.aligned
        self.convolution = SampledConvolution(alignment.width, outputs, samples_of(alignment), rows)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T), zero in padded steps, to aligned features (D T, B, O)."""
        aligned: Tensor = self.convolution(F.relu(self.reduce(x)) * mask[:, None])
        return aligned


class ProposalEvaluation(nn.Module):
    """Aligned features of every cell, then convolutions on the map; cells that are no segment stay 0 throughout."""

    def __init__(self, params: ProposalModel) -> None:
        super().__init__()
        self.durations, self.steps = params.durations, params.steps
        self.align = _alignment(params)
        confidence = params.confidence
        self.project = nn.Linear(confidence.aligned, confidence.width)
        self.convs = nn.ModuleList(
            nn.Conv2d(confidence.width, confidence.width, confidence.kernel, padding=confidence.kernel // 2)
            for _ in range(confidence.layers)
        )

    def forward(self, x: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
        """Base features (B, C, T), mask (B, T) and valid cells (B, D, T) to features (B, C_map, D, T)."""
        inside = valid[:, None].to(x.dtype)
        rows = F.relu(self.project(F.relu(self.align(x, mask))))
        y: Tensor = rows.permute(1, 2, 0).reshape(*inside.shape[:1], -1, self.durations, self.steps) * inside
        for conv in self.convs:
            y = F.relu(conv(y)) * inside
        return y


def _alignment(params: ProposalModel) -> nn.Module:
    if isinstance(params.alignment, BoundaryMatching):
        return BoundaryMatchingAlignment(params, params.alignment)
    assert params.graph is not None  # the schema's check
    return SubGraphAlignment(params, params.alignment, params.graph)
