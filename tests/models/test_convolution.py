"""The block of plain convolutions against sums over its kernels."""

import torch

from rdfa.models.convolution import TwoConvolutions
from rdfa.schema import Convolution


def test_the_block_is_convolution_relu_convolution_with_nothing_outside_the_video() -> None:
    torch.manual_seed(0)
    block = TwoConvolutions(3, 5, Convolution(kind="convolution", expand=2)).double()
    for parameter in block.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    x, lengths = torch.randn(2, 8, 3, dtype=torch.float64), [8, 5]
    x[1, 5:] = 0
    found = block(x, torch.tensor(lengths))
    for video, length in enumerate(lengths):

        def layer(conv: torch.nn.Conv1d, values: torch.Tensor, length: int = length) -> torch.Tensor:
            assert conv.bias is not None
            rows = []
            for t in range(length):
                near = [(j, t + j - 2) for j in range(5) if 0 <= t + j - 2 < length]
                rows.append(conv.bias + sum(conv.weight[:, :, j] @ values[s] for j, s in near))
            return torch.stack(rows)

        hidden = layer(block.first, x[video]).clamp(min=0)
        assert hidden.shape[1] == 6
        torch.testing.assert_close(found[video, :length], layer(block.second, hidden))
