"""Which mixer a block has, by its kind. All are called alike: x (B, T, C) and lengths (B,) or None to (B, T, C).

With lengths, a mixer lets nothing of the padding into a valid step, provided that x is 0 there; what it gives for
padded steps is up to it.
"""

from collections.abc import Sequence

from torch import nn

from rdfa.models.attention import WindowedAttention
from rdfa.models.convolution import TwoConvolutions
from rdfa.models.s6 import FABiS6
from rdfa.models.vim import BidirectionalMamba
from rdfa.schema import S6, Attention, Block, Convolution, ViM


def mixer(channels: int, kernels: Sequence[int], params: Block) -> nn.Module:
    """The mixer of a block of `channels`, whose convolutions are as wide as `kernels` says.

    Raises:
        ValueError: the kind has no mixer.
    """
    match params:
        case S6():
            return FABiS6(channels, kernels, params)
        case ViM():
            return BidirectionalMamba(channels, kernels[0], params)
        case Attention():
            return WindowedAttention(channels, kernels[0], params)
        case Convolution():
            return TwoConvolutions(channels, kernels[0], params)
    raise ValueError(f"block.kind {params.kind!r} has no mixer")
