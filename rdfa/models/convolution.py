"""A block of plain convolutions (ActionFormer's ConvBlock).

Source: github.com/happyharrycn/actionformer_release, libs/modeling/blocks.py, class ConvBlock: convolution to
`expand` times the channels, ReLU, convolution back. Ours: it stands in the same normalised and scaled residual path as
every other kind, so that there is no ReLU after the sum, and max-pooling halves the length instead of a stride.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from rdfa.ops.selective_scan.layout import valid_steps
from rdfa.schema import Convolution


class TwoConvolutions(nn.Module):
    """Convolution, ReLU, convolution over time."""

    def __init__(self, channels: int, kernel: int, params: Convolution) -> None:
        super().__init__()
        inner = params.expand * channels
        self.first = nn.Conv1d(channels, inner, kernel, padding=kernel // 2)
        self.second = nn.Conv1d(inner, channels, kernel, padding=kernel // 2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start from biases of 0."""
        for conv in (self.first, self.second):
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix the steps of a sequence: (B, T, C) to (B, T, C); see `mixers` for `lengths`."""
        hidden = F.relu(self.first(x.transpose(1, 2)))
        if lengths is not None:
            hidden = hidden * valid_steps(lengths, x.shape[1])
        mixed: Tensor = self.second(hidden).transpose(1, 2)
        return mixed
