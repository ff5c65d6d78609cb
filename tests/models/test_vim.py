"""ViM against a composition step by step, and its relation to DBM's convolution and scan."""

import math

import torch
from torch import Tensor

from rdfa.models.vim import BidirectionalMamba, Direction
from rdfa.ops.selective_scan import use_backend
from rdfa.schema import ViM

PARAMS = ViM(kind="vim", state=3, expand=2, dt_min=0.001, dt_max=0.1, dt_floor=1e-4)


def one_direction(direction: Direction, x: Tensor, z: Tensor) -> Tensor:
    """Mamba of one video (T, D), step by step, forwards."""
    weight, state = direction.conv_weight, torch.zeros_like(direction.A_log)
    outputs = []
    for t in range(len(x)):
        u = direction.conv_bias.clone()
        for j in range(weight.shape[1]):
            if (at := t - weight.shape[1] + 1 + j) >= 0:
                u = u + weight[:, j] * x[at]
        u = u / (1 + torch.exp(-u))
        step, b, c = (direction.x_proj.weight @ u).split([direction.rank, PARAMS.state, PARAMS.state])
        dt = torch.log1p(torch.exp(direction.dt_proj.weight @ step + direction.dt_bias))
        decay = torch.exp(dt[:, None] * -torch.exp(direction.A_log))
        state = decay * state + (dt * u)[:, None] * b
        y = state @ c + direction.D * u
        outputs.append(y * z[t] / (1 + torch.exp(-z[t])))
    return torch.stack(outputs)


def test_vim_is_two_mambas_with_weights_of_their_own_one_of_them_backwards() -> None:
    torch.manual_seed(0)
    block = BidirectionalMamba(5, 4, PARAMS).double()
    for parameter in block.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    x, lengths = torch.randn(2, 9, 5, dtype=torch.float64), torch.tensor([9, 6])
    x[1, 6:] = 0
    with use_backend("reference"), torch.no_grad():
        found = block(x, lengths)
        for video, length in enumerate(lengths.tolist()):
            u, z = (x[video, :length] @ block.in_proj.weight.T).chunk(2, dim=1)
            ahead = one_direction(block.ahead, u, z)
            back = one_direction(block.back, u.flip(0), z.flip(0)).flip(0)
            torch.testing.assert_close(found[video, :length], (ahead + back) @ block.out_proj.weight.T)


def test_vim_has_the_number_of_parameters_of_bimamba_v2() -> None:
    channels, inner, state, rank, kernel = 20, 40, 3, math.ceil(20 / 16), 4
    of_direction = inner * (kernel + 1) + inner * (rank + 2 * state) + (rank * inner + inner) + inner * state + inner
    block = BidirectionalMamba(channels, kernel, PARAMS)
    total = 2 * inner * channels + 2 * of_direction + inner * channels
    assert sum(parameter.numel() for parameter in block.parameters()) == total
