"""The base feature: BMN's local convolutions, or G-TAD's convolution and graph block."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from rdfa.models.proposals.gcnext import GCNeXt
from rdfa.schema import ProposalModel


class BaseFeature(nn.Module):
    """Features with more of what surrounds them."""

    def __init__(self, dimension: int, params: ProposalModel) -> None:
        super().__init__()
        base = params.base
        if dimension % base.groups:
            raise ValueError(
                f"base.groups {base.groups} does not divide features.dimension {dimension}: set model.base.groups to 1"
            )
        widths = [dimension] + [base.width] * base.layers
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, base.kernel, padding=base.kernel // 2, groups=base.groups)
            for before, after in pairwise(widths)
        )
        self.graph = GCNeXt(base.width, params.graph) if params.family == "gtad" and params.graph else None

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, C_in, T) and (B, T) bool to (B, C, T), zero in padded steps."""
        valid = mask[:, None].to(features.dtype)
        x = features * valid
        for conv in self.convs:
            x = F.relu(conv(x)) * valid
        if self.graph is not None:
            x = self.graph(x, mask)
        return x
