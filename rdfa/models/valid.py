"""Which steps of a padded batch are valid."""

import torch
from torch import Tensor


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """Lengths (B,) to (B, T) bool, true before each length."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]
