"""From a proposal map to scored segments of one video."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rdfa.models.proposals.detector import ProposalMaps
from rdfa.schema import Detection

Score = Literal["boundaries_times_confidence", "confidence"]


def decode_proposals(
    maps: ProposalMaps, score: Score, params: Detection
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.int64]]:
    """Candidates of the first video of a batch, best first.

    Every segment of the map is one, unless it ends in the padding, is thinned out, scores at most `score_threshold` or
    is at most `min_duration` long; the best `top_k` stay. Ours: the published codes look only at segments between
    peaks of the boundaries.

    Args:
        score: classification x regression of the last refinement, or this x start x end.

    Returns:
        Segments (n, 2) in grid steps, scores (n,), class indices (n,), all 0.
    """
    segments = maps.segments[0].float()
    confidence = torch.sigmoid(maps.logits[-1][0].float()).prod(0)
    if score == "boundaries_times_confidence":
        start, end = (torch.sigmoid(logits[0].float()) for logits in (maps.start, maps.end))
        confidence = confidence * _at(start, segments[:, 0] + 0.5) * _at(end, segments[:, 1] - 0.5)
    long = segments[:, 1] - segments[:, 0] > params.min_duration
    kept = torch.nonzero(maps.candidate[0] & long & (confidence > params.score_threshold)).squeeze(1)
    order = torch.sort(confidence[kept], descending=True, stable=True).indices[: params.top_k]
    kept = kept[order]
    labels = np.zeros(len(kept), dtype=np.int64)
    return segments[kept].cpu().numpy(), confidence[kept].cpu().numpy(), labels


def _at(probability: Tensor, position: Tensor) -> Tensor:
    """Probabilities (T,) between steps, by linear interpolation: positions (P,) to (P,)."""
    position = position.clamp(0, len(probability) - 1)
    low = position.floor().long()
    high = (low + 1).clamp(max=len(probability) - 1)
    above = position - low
    return probability[low] * (1 - above) + probability[high] * above
