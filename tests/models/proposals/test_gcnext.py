"""GCNeXt: neighbours as a search over all steps finds them, the block as its sums one by one, blind to padding."""

import pytest
import torch
from torch import Tensor

from rdfa.models.proposals.gcnext import GCNeXt, gather_neighbours, semantic_neighbours
from rdfa.schema import Graph

C, T = 6, 9
PARAMS = Graph(neighbours=3, groups=2, group_width=4)


def features(lengths: list[int]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    return torch.randn(len(lengths), C, T, dtype=torch.float64) * mask[:, None], mask


def block() -> GCNeXt:
    torch.manual_seed(1)
    return GCNeXt(C, PARAMS).double()


@pytest.mark.parametrize("count", [1, 3, 5])
def test_neighbours_are_the_nearest_valid_steps(count: int) -> None:
    x, mask = features([T, 5, 2])
    found = semantic_neighbours(x, mask, count)
    for video, length in enumerate((T, 5, 2)):
        for step in range(length):
            distances = [float((x[video, :, step] - x[video, :, other]).square().sum()) for other in range(length)]
            nearest = sorted(range(length), key=distances.__getitem__)[:count]
            assert found[video, step].tolist() == nearest + [step] * (count - len(nearest))
            assert nearest[0] == step


def test_neighbours_of_far_away_points_are_found_from_a_distance() -> None:
    x, mask = features([T])
    assert torch.equal(semantic_neighbours(x, mask, 3), semantic_neighbours(x + 1e3, mask, 3))


def test_gathered_features_are_the_neighbours() -> None:
    x, mask = features([T, 5])
    neighbours = semantic_neighbours(x, mask, 3)
    gathered = gather_neighbours(x, neighbours)
    for video in range(2):
        for step in range(T):
            for k in range(3):
                assert torch.equal(gathered[video, :, step, k], x[video, :, neighbours[video, step, k]])


def grouped(weight: Tensor, bias: Tensor, x: Tensor, groups: int) -> Tensor:
    """A grouped 1 x 1 product on (C,)."""
    parts = zip(weight.chunk(groups), x.chunk(groups), strict=True)
    return torch.cat([part @ given for part, given in parts]) + bias


def test_the_block_is_the_sum_of_the_step_its_path_over_time_and_its_strongest_edge() -> None:
    x, mask = features([T])
    layers = block()
    neighbours = semantic_neighbours(x, mask, 3)[0]
    (time1, time2, time3), (edge1, edge2, edge3) = layers.temporal, layers.semantic
    hidden = [(time1.weight[:, :, 0] @ x[0, :, t] + time1.bias).relu() for t in range(T)]
    out = layers(x, mask)[0]
    for t in range(T):
        near = sum(
            grouped(time2.weight[:, :, j], 0 * time2.bias, hidden[t + j - 1], 2) for j in range(3) if 0 <= t + j - 1 < T
        )
        over_time = time3.weight[:, :, 0] @ (near + time2.bias).relu() + time3.bias
        messages = []
        for other in neighbours[t]:
            joined = torch.cat([x[0, :, other], x[0, :, t]])
            first = (edge1.weight[:, :, 0] @ joined + edge1.bias).relu()
            second = grouped(edge2.weight[:, :, 0], edge2.bias, first, 2).relu()
            messages.append(edge3.weight[:, :, 0] @ second + edge3.bias)
        expected = (x[0, :, t] + over_time + torch.stack(messages).amax(0)).relu()
        torch.testing.assert_close(out[:, t], expected)


def test_padding_changes_no_valid_step_and_stays_zero() -> None:
    x, mask = features([5, 2])
    found = block()(x, mask)
    for video, length in enumerate((5, 2)):
        shorter = slice(max(length, PARAMS.neighbours))
        alone = block()(x[video : video + 1, :, shorter], mask[video : video + 1, shorter])
        torch.testing.assert_close(found[video, :, :length], alone[0, :, :length])
        assert not found[video, :, length:].any()
