"""Start and end probabilities of every step (BMN's temporal evaluation module; G-TAD's regularisation)."""

from torch import Tensor, nn
from torch.nn import functional as F

from rdfa.models.proposals.gcnext import GCNeXt
from rdfa.schema import ProposalModel


class BoundaryHead(nn.Module):
    """Logits of one kind of boundary: a convolution or a graph block, then one number per step."""

    def __init__(self, params: ProposalModel) -> None:
        super().__init__()
        width, graph = params.base.width, params.boundaries.kind == "graph"
        self.graph = GCNeXt(width, params.graph) if graph and params.graph else None
        self.conv = None if graph else nn.Conv1d(width, width, 3, padding=1, groups=params.boundaries.groups)
        self.output = nn.Conv1d(width, 1, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T), zero in padded steps, and (B, T) bool to (B, T) logits, zero in padded steps."""
        if self.graph is not None:
            x = self.graph(x, mask)
        if self.conv is not None:
            x = F.relu(self.conv(x))
        y: Tensor = self.output(x)[:, 0] * mask
        return y


class TemporalEvaluation(nn.Module):
    """Both boundaries, with weights of their own."""

    def __init__(self, params: ProposalModel) -> None:
        super().__init__()
        self.start, self.end = BoundaryHead(params), BoundaryHead(params)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T) and (B, T) bool to start and end logits, each (B, T)."""
        return self.start(x, mask), self.end(x, mask)
