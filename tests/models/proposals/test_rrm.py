"""The recurrent refinement is the supplement's Figure 4 and Equation 1, and no gradient passes through its map."""

import torch
from torch import Tensor
from torch.nn import functional as F

from rdfa.models.proposals.rrm import ConvGRU, RecurrentRefinement, UpdateBlock, refined
from tests.models.proposals.settings import small

WIDTH, D, T = 6, 5, 7


def network(iterations: int = 3, temporal: int = 1) -> RecurrentRefinement:
    torch.manual_seed(0)
    params = small("bmn with RCL", refine__iterations=iterations, refine__temporal=temporal).refine
    assert params is not None
    layers = RecurrentRefinement(WIDTH, params).double()
    layers.block.change.reset_parameters()  # its owner starts it at zero
    return layers


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    valid = torch.stack([torch.arange(D)[:, None] + torch.arange(T) < length for length in (7, 4)])
    features, heatmap = (torch.randn(2, count, D, T, dtype=torch.float64) * valid[:, None] for count in (WIDTH, 2))
    return features, heatmap, valid


def figure_4(network: RecurrentRefinement, base_feat: Tensor, heatmap: Tensor, inside: Tensor, iters: int) -> Tensor:
    """The figure's code on a map of probabilities, with Equation 1 written out, and cells outside held at zero."""
    block, gru = network.block, network.block.gru

    def conv(layer: torch.nn.Conv2d, x: Tensor) -> Tensor:
        return F.conv2d(x, layer.weight, layer.bias, padding=1)

    heatmap = torch.logit(heatmap)
    cnet = conv(network.context, base_feat) * inside
    net, inp = torch.tanh(cnet[:, :4]), torch.relu(cnet[:, 4:])
    assert block.temporal is not None
    temporal = torch.einsum("oc,bcdt->bodt", block.temporal.weight[:, :, 0, 0], base_feat)
    temporal = torch.relu(temporal + block.temporal.bias[:, None, None]) * inside
    for _ in range(iters):
        x = torch.cat([heatmap, temporal, inp], dim=1)
        z = torch.sigmoid(conv(gru.update, torch.cat([net, x], dim=1)))
        r = torch.sigmoid(conv(gru.reset, torch.cat([net, x], dim=1)))
        candidate = torch.tanh(conv(gru.candidate, torch.cat([r * net, x], dim=1)))
        net = ((1 - z) * net + z * candidate) * inside
        heatmap = heatmap + conv(block.change, net) * inside
    return heatmap


def test_the_refined_map_is_that_of_the_supplement_s_code() -> None:
    features, heatmap, valid = inputs()
    layers = network()
    maps = refined(heatmap, layers(features, heatmap, valid))
    for iterations, found in enumerate(maps):
        expected = figure_4(layers, features, torch.sigmoid(heatmap), valid[:, None].double(), iterations)
        torch.testing.assert_close(found, expected)


def test_no_gradient_passes_through_the_map_but_every_iteration_trains_the_network() -> None:
    features, heatmap, valid = inputs()
    heatmap.requires_grad_()
    features.requires_grad_()
    maps = refined(heatmap, network()(features, heatmap, valid))
    assert torch.equal(torch.autograd.grad(maps[0].sum(), heatmap, retain_graph=True)[0], torch.ones_like(heatmap))
    for found in maps[1:]:
        assert torch.autograd.grad(found.sum(), heatmap, retain_graph=True, allow_unused=True) == (None,)
        assert torch.autograd.grad(found.sum(), features, retain_graph=True)[0].any()


def test_a_map_s_gradient_is_that_of_its_last_change_alone() -> None:
    features, heatmap, valid = inputs()
    layers = network()
    changes = layers(features, heatmap, valid)
    weight = layers.block.change.weight
    for map_, change in zip(refined(heatmap, changes)[1:], changes, strict=True):
        found, expected = (torch.autograd.grad(x.sum(), weight, retain_graph=True)[0] for x in (map_, change))
        assert torch.equal(found, expected) and found.any()


def test_the_running_map_does_not_lose_small_changes_in_mixed_precision() -> None:
    start, change = torch.full((1, 2, D, T), 8.0, dtype=torch.bfloat16), torch.full((1, 2, D, T), 0.01).bfloat16()
    assert torch.equal(start + change, start)
    maps = refined(start, [change] * 10)
    torch.testing.assert_close(maps[-1], start + 10 * change.float())


def test_no_iteration_leaves_the_map_as_it_is() -> None:
    features, heatmap, valid = inputs()
    assert network(iterations=0)(features, heatmap, valid) == []
    (only,) = refined(heatmap, [])
    assert only is heatmap


def test_without_temporal_features_the_input_is_confidences_and_context() -> None:
    features, heatmap, valid = inputs()
    layers = network(temporal=0)
    assert layers.block.gru.update.in_channels == 4 + 2 + 3
    assert len(layers(features, heatmap, valid)) == 3


def test_the_gradients_of_an_iteration_are_those_of_numerical_differences() -> None:
    torch.manual_seed(0)
    params = small("bmn with RCL").refine
    assert params is not None
    block = UpdateBlock(WIDTH, params).double()
    block.change.reset_parameters()
    parts = [torch.randn(1, count, 3, 4, dtype=torch.float64, requires_grad=True) for count in (4, 3, WIDTH, 2)]
    inside = torch.ones(1, 1, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *given: block(*given, inside), parts, fast_mode=True)
    gru = ConvGRU(3, 2).double()
    state, x = (torch.randn(1, count, 3, 4, dtype=torch.float64, requires_grad=True) for count in (3, 2))
    assert torch.autograd.gradcheck(gru, (state, x), fast_mode=True)
