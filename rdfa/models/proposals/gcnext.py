"""G-TAD's GCNeXt block: steps exchange features along time and with the steps most like them.

Source: Xu et al. 2020, "G-TAD", section 3.3; its public code (gtad_lib/models.py, class GCNeXt; OpenTAD,
opentad/models/bricks/gcnext.py). Ours: padded steps are nobody's neighbours, and nothing of them reaches a valid step.

Legend: k neighbours, W = groups x group_width channels between the layers of a path.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdfa.schema import Graph


@torch.no_grad()
def semantic_neighbours(x: Tensor, mask: Tensor, count: int) -> Tensor:
    """The `count` valid steps nearest to each step in feature space (Euclidean), usually itself among them.

    Args:
        x: (B, C, T).  mask: (B, T) bool, true where the step is not padding.

    Returns:
        (B, T, k) int64; where a video has fewer valid steps than k, the step itself takes the missing places.
    """
    points = x.transpose(1, 2)
    distance = torch.cdist(points, points).masked_fill(~mask[:, None, :], torch.inf)
    nearest = distance.topk(count, dim=2, largest=False)
    itself = torch.arange(x.shape[2], device=x.device)[:, None]
    return torch.where(nearest.values.isinf(), itself, nearest.indices)


def gather_neighbours(x: Tensor, neighbours: Tensor) -> Tensor:
    """Features of the neighbours: (B, C, T) and (B, T, k) to (B, C, T, k)."""
    flat = neighbours.flatten(1)[:, None, :].expand(-1, x.shape[1], -1)
    return x.gather(2, flat).view(*x.shape[:2], *neighbours.shape[1:])


class GCNeXt(nn.Module):
    """ReLU(x + path over time + path over semantic neighbours), each of three convolutions."""

    def __init__(self, channels: int, params: Graph) -> None:
        super().__init__()
        width, groups = params.groups * params.group_width, params.groups
        self.neighbours = params.neighbours
        self.temporal = nn.ModuleList(
            [
                nn.Conv1d(channels, width, 1),
                nn.Conv1d(width, width, 3, padding=1, groups=groups),
                nn.Conv1d(width, channels, 1),
            ]
        )
        self.semantic = nn.ModuleList(
            [
                nn.Conv1d(2 * channels, width, 1),
                nn.Conv1d(width, width, 1, groups=groups),
                nn.Conv1d(width, channels, 1),
            ]
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T), zero in padded steps, and (B, T) bool to the same."""
        valid = mask[:, None].to(x.dtype)
        first, second, third = self.temporal
        over_time = third(F.relu(second(F.relu(first(x)) * valid)))
        y: Tensor = F.relu(x + over_time + self._semantic(x, mask)) * valid
        return y

    def _semantic(self, x: Tensor, mask: Tensor) -> Tensor:
        neighbours = semantic_neighbours(x, mask, self.neighbours)
        theirs = gather_neighbours(x, neighbours)
        edges = torch.cat([theirs, x[..., None].expand_as(theirs)], dim=1).flatten(2)
        first, second, third = self.semantic
        messages: Tensor = third(F.relu(second(F.relu(first(edges)))))
        return messages.view(*x.shape, -1).amax(3)
