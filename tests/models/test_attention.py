"""Windowed attention: equal to full attention with a band mask, linear in the length, blind to padding."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from rdfa.models.attention import FeedForward, WindowedAttention, sinusoid, windowed_attention
from rdfa.schema import Attention


def params(window: int = 7, heads: int = 2) -> Attention:
    return Attention(kind="attention", heads=heads, window=window, hidden=4, dropout=0.1, positions=False)


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    for parameter in module.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return module.double().eval().requires_grad_(False)


def banded(query: Tensor, key: Tensor, value: Tensor, half: int, length: int) -> Tensor:
    """The same from the full T x T matrix, for one video (H, T, E)."""
    at = torch.arange(query.shape[1])
    seen = ((at[:, None] - at).abs() <= half) & (at < length)
    return F.scaled_dot_product_attention(query, key, value, seen)


@pytest.mark.parametrize("half", [1, 3, 9])
@pytest.mark.parametrize("steps", [1, 5, 6, 18, 37])
def test_windowed_attention_is_full_attention_with_a_band_mask(steps: int, half: int) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, steps, 5, dtype=torch.float64)
    lengths = torch.tensor([steps, max(1, steps // 2)])
    everything = windowed_attention(query, key, value, half)
    padded = windowed_attention(query, key, value, half, lengths)
    for video, length in enumerate(lengths.tolist()):
        full = banded(query[video], key[video], value[video], half, steps)
        torch.testing.assert_close(everything[video], full)
        masked = banded(query[video], key[video], value[video], half, length)
        torch.testing.assert_close(padded[video, :, :length], masked[:, :length])
    assert padded.isfinite().all()


def test_the_attention_block_is_convolution_normalisation_projection_and_attention_of_each_head() -> None:
    torch.manual_seed(0)
    block = shaken(WindowedAttention(8, 3, params(window=5)))
    assert isinstance(block, WindowedAttention)
    x = torch.randn(1, 11, 8, dtype=torch.float64)
    read = []
    for reader in (block.query, block.key, block.value):
        weight, padded = reader.conv.weight[:, 0], F.pad(x[0], (0, 0, 1, 1))
        convolved = sum(padded[j : j + 11] * weight[:, j] for j in range(3))
        centred = convolved - convolved.mean(1, keepdim=True)
        normed = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        read.append((normed * reader.norm.weight + reader.norm.bias) @ reader.project.weight.T + reader.project.bias)
    out = torch.zeros(11, 8, dtype=torch.float64)
    for head in range(2):
        channels = slice(4 * head, 4 * head + 4)
        for t in range(11):
            seen = range(max(0, t - 2), min(11, t + 3))
            scores = [float(read[0][t, channels] @ read[1][s, channels]) / 2 for s in seen]
            total = sum(math.exp(score) for score in scores)
            for s, score in zip(seen, scores, strict=True):
                out[t, channels] += math.exp(score) / total * read[2][s, channels]
    torch.testing.assert_close(block(x)[0], out @ block.project.weight.T + block.project.bias)


def test_the_feed_forward_layers_are_linear_gelu_linear() -> None:
    torch.manual_seed(0)
    layers = shaken(FeedForward(3, params()))
    assert isinstance(layers, FeedForward)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    hidden = x @ layers.first.weight.T + layers.first.bias
    assert hidden.shape[2] == 12
    gelu = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    torch.testing.assert_close(layers(x), gelu @ layers.second.weight.T + layers.second.bias)


class Largest(TorchDispatchMode):
    """The most numbers that any tensor made meanwhile has."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, out.numel() if isinstance(out, Tensor) else 0)
        return out


def test_no_tensor_of_windowed_attention_grows_faster_than_the_length() -> None:
    block = WindowedAttention(8, 3, params(window=19))

    def largest(steps: int) -> int:
        with Largest() as seen, torch.no_grad():
            block(torch.randn(1, steps, 8), torch.tensor([steps - 5]))
        return seen.numbers

    short, long = largest(18 * 20), largest(18 * 160)
    assert short >= 18 * 20 * 2 * 36  # the scores of two heads
    assert long == 8 * short


def test_positions_are_sines_and_cosines_in_turn() -> None:
    found = sinusoid(torch.zeros(3, 7, 6, dtype=torch.float64))
    for t in range(7):
        for c in range(6):
            angle = t / 10000 ** (2 * (c // 2) / 6)
            expected = (math.cos if c % 2 else math.sin)(angle) / math.sqrt(6)
            assert float(found[t, c]) == pytest.approx(expected, abs=1e-6)
    assert sinusoid(torch.zeros(1, 7, 5)).shape == (7, 5)
