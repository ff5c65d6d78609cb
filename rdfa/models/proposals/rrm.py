"""RCL's recurrent refinement of the confidence map (RRM; supplement, Figure 4 and Equation 1).

The template is RAFT's SmallUpdateBlock (github.com/princeton-vl/RAFT, core/update.py). The supplement's Table 1 prints
1.72 G multiply-accumulates for an iteration at D = T = 100, 172 k a cell: three 3 x 3 convolutions from 64 + w to 64
channels, with w = 35 and a 3 x 3 layer from 64 to 2 for the change, are 172.2 k. So the input is narrow, without RAFT's
wide encoder: 2 confidences, 32 context channels, and what we take for the "temporal features", one channel made of the
cells' features by a 1 x 1 layer (0.1 k).

One layer makes all n changes, so that what is wrong with it at the start adds up n times. It therefore starts at zero
(ours: the paper is silent, and RAFT starts its layer at random): an untrained refinement is the identity for any n.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdfa.schema import Rcl


class ConvGRU(nn.Module):
    """Equation 1: a gated recurrent unit whose products are 3 x 3 convolutions."""

    def __init__(self, state: int, inputs: int) -> None:
        super().__init__()
        self.update, self.reset, self.candidate = (nn.Conv2d(state + inputs, state, 3, padding=1) for _ in range(3))

    def forward(self, state: Tensor, x: Tensor) -> Tensor:
        """State (B, H, D, T) and input (B, W, D, T) to the next state."""
        both = torch.cat([state, x], dim=1)
        z, r = torch.sigmoid(self.update(both)), torch.sigmoid(self.reset(both))
        candidate = torch.tanh(self.candidate(torch.cat([r * state, x], dim=1)))
        return (1 - z) * state + z * candidate


class UpdateBlock(nn.Module):
    """One iteration: the next state, and the change of the map."""

    def __init__(self, width: int, params: Rcl) -> None:
        super().__init__()
        self.temporal = nn.Conv2d(width, params.temporal, 1) if params.temporal else None
        self.gru = ConvGRU(params.state, 2 + params.temporal + params.context)
        self.change = nn.Conv2d(params.state, 2, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """No change before training."""
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)  # type: ignore[arg-type]

    def forward(
        self, state: Tensor, context: Tensor, features: Tensor, heatmap: Tensor, inside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All (B, channels, D, T), zero outside the valid cells; returns state and change, too."""
        parts = [heatmap] if self.temporal is None else [heatmap, F.relu(self.temporal(features)) * inside]
        state = self.gru(state, torch.cat([*parts, context], dim=1)) * inside
        return state, self.change(state) * inside


class RecurrentRefinement(nn.Module):
    """Figure 4: the map of logits is changed n times, each time without a gradient through what it was before."""

    def __init__(self, width: int, params: Rcl) -> None:
        super().__init__()
        self.iterations, self.split = params.iterations, [params.state, params.context]
        self.context = nn.Conv2d(width, params.state + params.context, 3, padding=1)
        self.block = UpdateBlock(width, params)

    def forward(self, features: Tensor, heatmap: Tensor, valid: Tensor) -> list[Tensor]:
        """The n changes, whose running sum on the map is the refined map.

        The sum is kept in float32 under autocast: in bfloat16 it would lose most of a small change of a large logit.

        Args:
            features: (B, C, D, T).
            heatmap: (B, 2, D, T) logits. The figure begins with an inverse sigmoid, since its map is one of
                probabilities; ours never left the logits. Its last map is not yet probabilities either.
            valid: (B, D, T) bool.
        """
        inside = valid[:, None].to(features.dtype)
        state, context = torch.split(self.context(features) * inside, self.split, dim=1)
        state, context = torch.tanh(state), F.relu(context)
        heatmap, changes = _wide(heatmap), []
        for _ in range(self.iterations):
            heatmap = heatmap.detach()
            state, change = self.block(state, context, features, heatmap, inside)
            heatmap = heatmap + change
            changes.append(change)
        return changes


def refined(start: Tensor, changes: list[Tensor]) -> tuple[Tensor, ...]:
    """The map before and after each change, at least float32; gradients go into the last change of each, and into the
    unchanged map."""
    maps = [_wide(start)]
    for change in changes:
        maps.append(maps[-1].detach() + change)
    return tuple(maps)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
