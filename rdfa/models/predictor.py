"""A detector that needs nothing but features: what other programs load."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdfa.models.detector import Detector
from rdfa.models.pyramid import pyramid_points
from rdfa.schema import Model


class Predictor(nn.Module):
    """Features (B, C, T) of whole videos to every pyramid point's segment and class probabilities."""

    def __init__(self, detector: Detector, params: Model) -> None:
        super().__init__()
        self.detector = detector.eval()
        self.ranges = params.regression_ranges

    @torch.inference_mode()
    def forward(self, features: Tensor) -> Tensor:
        """(B, C, T) float32, any T, to (B, P, 2 + K): start and end in grid steps, then K class probabilities."""
        total = features.shape[2]
        coarsest = 2 ** (len(self.ranges) - 1)
        padded = F.pad(features, (0, -total % coarsest))
        mask = torch.arange(padded.shape[2], device=features.device).expand(len(features), -1) < total
        logits, offsets, _ = self.detector(padded, mask)
        points = torch.cat(pyramid_points(padded.shape[2], self.ranges)).to(features.device)
        distance = torch.cat(offsets, dim=1) * points[:, 3:]
        segments = torch.stack([points[:, 0] - distance[..., 0], points[:, 0] + distance[..., 1]], dim=2)
        return torch.cat([segments, torch.sigmoid(torch.cat(logits, dim=1))], dim=2)
