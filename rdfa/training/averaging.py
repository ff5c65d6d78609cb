"""Exponential moving average of a model's weights."""

import torch
from torch import Tensor, nn

from rdfa.schema import Average


class AveragedWeights:
    """average <- d * average + (1 - d) * weights after each step, starting at the initial weights.

    d is `decay`, or with `ramp` the smaller of `decay` and (1 + t) / (10 + t) at step t, so that a short run is not
    mostly its initialisation.
    """

    def __init__(self, model: nn.Module, params: Average) -> None:
        self.params = params
        self.updates = 0
        self.weights = {name: parameter.detach().clone() for name, parameter in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's weights after an optimiser step."""
        decay = self.params.decay
        if self.params.ramp:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        current: dict[str, Tensor] = model.state_dict()
        torch._foreach_lerp_(list(self.weights.values()), [current[name] for name in self.weights], 1 - decay)
        self.updates += 1
