"""G-TAD's SGAlign: each segment's own steps and those that its steps are like, in bins of a fixed number.

Source: Xu et al. 2020, "G-TAD", section 3.4; OpenTAD, opentad/models/roi_heads/roi_extractors/gtad_extractor.py. Ours:
a position is read where it is in time (the public code reads half a step later), and 0 beyond the valid part.
"""

from torch import Tensor, nn

from rdfa.models.proposals.boundary_matching import SampledConvolution, grid_interpolation, samples_of
from rdfa.models.proposals.gcnext import GCNeXt, gather_neighbours, semantic_neighbours
from rdfa.schema import Graph, ProposalModel, SGAlign


class SubGraphAlignment(nn.Module):
    """A graph block, then bins of the steps and of the mean over each step's semantic neighbours."""

    def __init__(self, params: ProposalModel, alignment: SGAlign, graph: Graph) -> None:
        super().__init__()
        self.graph, self.neighbours = GCNeXt(params.base.width, graph), graph.neighbours
        rows = grid_interpolation(alignment, params.durations, params.steps)
        outputs = params.confidence.aligned
        self.convolution = SampledConvolution(params.base.width, outputs, samples_of(alignment), rows)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T), zero in padded steps, to aligned features (D T, B, O)."""
        x = self.graph(x, mask)
        neighbours = semantic_neighbours(x, mask, self.neighbours)
        context = gather_neighbours(x, neighbours).mean(3) * mask[:, None]
        aligned: Tensor = self.convolution(x, context)
        return aligned
