"""Optimiser and learning rate."""

import math

import torch
from torch import nn

from rdfa.models.s6 import FABiS6
from rdfa.models.vim import Direction
from rdfa.schema import Training


def learning_rate(step: int, steps_per_epoch: int, params: Training) -> float:
    """Linear warm-up from 0, then a cosine to `min_learning_rate` at `schedule_epochs`; `step` counts from 0."""
    warmup, total = params.warmup_epochs * steps_per_epoch, params.schedule_epochs * steps_per_epoch
    if step < warmup:
        return params.learning_rate * step / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    low = params.min_learning_rate
    return low + 0.5 * (params.learning_rate - low) * (1 + math.cos(math.pi * progress))


def optimizer(model: nn.Module, params: Training) -> torch.optim.AdamW:
    """AdamW with weight decay on the weights of convolutions and projections only.

    No decay for biases, normalisations and learned scales; A_log and D of a selective scan decay if `decay_state`.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    of_scans = [part for each in model.modules() if isinstance(each, FABiS6) for part in each.children()]
    for module in model.modules():
        if isinstance(module, nn.ParameterList):  # of a scan: it says below what it is; else a convolution's weights
            decayed.extend(() if any(module is part for part in of_scans) else module)
            continue
        for name, parameter in module.named_parameters(recurse=False):
            (decayed if _decays(module, name, params.decay_state) else free).append(parameter)
        if isinstance(module, FABiS6):
            decayed.extend(module.conv_weights)
            free.extend(module.conv_biases)
    assert len(decayed) + len(free) == len(list(model.parameters())), "a weight that nothing would train"
    groups = [{"params": decayed, "weight_decay": params.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=params.learning_rate, fused=params.fused_optimizer)


def _decays(module: nn.Module, name: str, decay_state: bool) -> bool:
    if isinstance(module, FABiS6):
        return decay_state and name in ("A_log", "D")
    if isinstance(module, Direction):
        return name == "conv_weight" or (decay_state and name in ("A_log", "D"))
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) and name == "weight"
