"""The detectors as a whole: what is asked for, padding, order of the batch, continuous segments, refinement."""

import pytest
import torch
from torch import Tensor

from rdfa.models.proposals.detector import ProposalDetector, ProposalMaps
from tests.models.proposals.settings import FAMILY, proposal_model, small

C, T, D = 16, 12, 8
LENGTHS = (12, 7, 5)
EVERY = pytest.mark.parametrize("family", FAMILY)
WITH_RCL = pytest.mark.parametrize("family", ["bmn with RCL", "gtad with RCL"])
PLAIN = pytest.mark.parametrize("family", ["bmn", "gtad"])


def detector(family: str, **changes: object) -> ProposalDetector:
    torch.manual_seed(0)
    model = ProposalDetector(C, small(family, **changes)).double().eval()
    for parameter in model.parameters():  # so large that every part is felt
        parameter.data.mul_(1.5)
    if model.refinement is not None:
        model.refinement.block.change.reset_parameters()  # its owner starts it at zero
    return model


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    mask = torch.arange(T) < torch.tensor(LENGTHS)[:, None]
    return torch.randn(len(LENGTHS), C, T, dtype=torch.float64), mask


def valid_parts(found: ProposalMaps, video: int) -> list[Tensor]:
    """All numbers of one video that count."""
    of_steps = [part[video][found.mask[video]] for part in (found.start, found.end)]
    of_cells = [part[video][:, found.valid[video]] for part in (*found.maps, found.features)]
    return of_steps + of_cells + [part[video][:, found.candidate[video]] for part in found.logits]


@EVERY
def test_padding_reaches_nothing_that_counts(family: str) -> None:
    features, mask = batch()
    model = detector(family)
    first = model(features, mask)
    second = model(features.masked_fill(~mask[:, None], 7.0), mask)
    for video in range(len(LENGTHS)):
        for one, other in zip(valid_parts(first, video), valid_parts(second, video), strict=True):
            assert torch.equal(one, other)


@EVERY
def test_a_padded_video_has_the_maps_of_a_window_of_its_own_length(family: str) -> None:
    features, mask = batch()
    found = detector(family)(features, mask)
    for video, length in enumerate(LENGTHS):
        shorter = detector(family, steps=length, durations=min(D, length))
        own = shorter(features[video : video + 1, :, :length], mask[video : video + 1, :length])
        longest = min(D, length)
        assert torch.equal(found.valid[video, :longest, :length], own.valid[0])
        assert found.valid[video].sum() == own.valid.sum()
        torch.testing.assert_close(found.start[video, :length], own.start[0])
        torch.testing.assert_close(found.end[video, :length], own.end[0])
        for padded, alone in zip(found.maps, own.maps, strict=True):
            torch.testing.assert_close(padded[video, :, :longest, :length], alone[0])


@EVERY
def test_the_order_of_a_batch_changes_nothing(family: str) -> None:
    features, mask = batch()
    model, order = detector(family), [2, 0, 1]
    found, turned = model(features, mask), model(features[order], mask[order])
    for at, video in enumerate(order):
        for one, other in zip(valid_parts(found, video), valid_parts(turned, at), strict=True):
            torch.testing.assert_close(one, other)


@PLAIN
@pytest.mark.parametrize("training", [False, True])
def test_a_plain_detector_asks_for_its_cells(family: str, training: bool) -> None:
    found = detector(family).train(training)(*batch())
    assert len(found.maps) == len(found.logits) == 1
    assert torch.equal(found.logits[0], found.maps[0].flatten(2))
    assert torch.equal(found.candidate, found.valid.flatten(1))
    cell = found.segments[1].unflatten(0, (D, T))[3, 2]
    assert cell.tolist() == [1.5, 5.5]


@pytest.mark.parametrize("training", [False, True])
def test_a_sparse_grid_thins_what_is_asked_for_and_leaves_the_map(training: bool) -> None:
    everything = detector("bmn").train(training)(*batch())
    sparse = detector("bmn", sampling__kind="sparse_half").train(training)(*batch())
    assert torch.equal(sparse.maps[0], everything.maps[0])
    kept = sparse.candidate.unflatten(1, (D, T))
    assert torch.equal(kept[:, : D // 2], everything.valid[:, : D // 2])
    assert torch.equal(kept[:, D // 2 :, ::2], everything.valid[:, D // 2 :, ::2])
    assert not kept[:, D // 2 :, 1::2].any()


@WITH_RCL
@pytest.mark.parametrize("coordinates", ["offset", "absolute"])
def test_continuous_segments_at_the_cells_are_the_map(family: str, coordinates: str) -> None:
    model = detector(family, refine__coordinates=coordinates)
    model.instances = model.grid.flatten(0, 1)
    found = model(*batch())
    assert torch.equal(found.candidate, found.valid.flatten(1))
    for asked, cells in zip(found.logits, found.maps, strict=True):
        for video in range(len(LENGTHS)):
            inside = found.valid[video].flatten()
            torch.testing.assert_close(asked[video][:, inside], cells[video].flatten(1)[:, inside])


@pytest.mark.parametrize("coordinates", ["offset", "absolute"])
def test_a_segment_between_cells_has_the_nearest_cell_s_features_and_its_own_coordinates(coordinates: str) -> None:
    model = detector("bmn with RCL", refine__coordinates=coordinates)
    model.instances = torch.tensor([[2.8, 6.1], [2.6, 6.3]], dtype=torch.float64)  # nearest: cell (2, 3), then (3, 3)
    found = model(*batch())
    assert found.candidate.tolist() == [[True, True], [True, True], [False, False]]
    for at, (d, s) in enumerate([(2, 3), (3, 3)]):
        start, end = model.instances[at].tolist()
        centre, duration = (start + end) / 2, end - start
        own = {"offset": [centre - (s + d / 2), duration - (d + 1)], "absolute": [centre / T, duration / D]}
        joined = torch.cat([found.features[0, :, d, s], torch.tensor(own[coordinates], dtype=torch.float64)])
        hidden = (model.confidence.hidden.weight[:, :, 0] @ joined + model.confidence.hidden.bias).relu()
        first = model.confidence.output.weight[:, :, 0] @ hidden + model.confidence.output.bias
        torch.testing.assert_close(found.logits[0][0, :, at], first)
        for before, after, asked, then in zip(
            found.maps[:-1], found.maps[1:], found.logits[:-1], found.logits[1:], strict=True
        ):
            change = (after - before)[0, :, d, s]
            torch.testing.assert_close((then - asked)[0, :, at], change)


def test_a_training_step_asks_for_other_segments_every_time_and_the_same_for_the_same_seed() -> None:
    model, given = detector("bmn with RCL").train(), batch()
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(model(*given).segments)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert drawn[0].shape == (3, 40, 2)


def test_a_part_of_a_batch_asks_for_the_segments_that_the_whole_batch_would() -> None:
    features, mask = (part[[0, 1]] for part in batch())
    model = detector("bmn with RCL").train()
    torch.manual_seed(0)
    whole = model(features, mask)
    model.share = (1, 2)
    torch.manual_seed(0)
    own = model(features[1:], mask[1:])
    torch.testing.assert_close(own.segments[0], whole.segments[1])
    torch.testing.assert_close(own.logits[-1][0], whole.logits[-1][1])


@WITH_RCL
def test_no_iteration_gives_the_unrefined_map_and_needs_no_network(family: str) -> None:
    model, plain = detector(family), detector(family, refine__iterations=0)
    assert plain.refinement is None
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "refinement" not in name})
    found, unrefined = model(*batch()), plain(*batch())
    assert len(found.maps) == 3 and len(unrefined.maps) == len(unrefined.logits) == 1
    assert torch.equal(found.maps[0], unrefined.maps[0]) and torch.equal(found.logits[0], unrefined.logits[0])
    assert not torch.equal(found.maps[0], found.maps[1])


@WITH_RCL
@pytest.mark.parametrize("iterations", [1, 10])
def test_before_training_refinement_is_the_identity_whatever_the_iterations(family: str, iterations: int) -> None:
    found = ProposalDetector(C, small(family, refine__iterations=iterations)).double()(*batch())
    assert len(found.maps) == len(found.logits) == iterations + 1
    for first, *others in (found.maps, found.logits):
        assert all(torch.equal(first, each) for each in others)


@WITH_RCL
def test_mixed_precision_keeps_the_running_map_in_float32(family: str) -> None:
    features, mask = batch()
    with torch.autocast("cpu", torch.bfloat16):
        found = detector(family).float()(features.float(), mask)
    assert {each.dtype for each in (*found.maps, *found.logits)} == {torch.float32}


@WITH_RCL
def test_only_the_unrefined_confidences_train_the_confidence_layers(family: str) -> None:
    model = detector(family).train()
    found = model(*batch())
    own = list(model.confidence.parameters())
    assert all(each.any() for each in torch.autograd.grad(found.logits[0].sum(), own, retain_graph=True))
    for logits in found.logits[1:]:
        gradients = torch.autograd.grad(logits.sum(), own, retain_graph=True, allow_unused=True)
        assert gradients == (None,) * len(own)
        assert model.refinement is not None
        refining = torch.autograd.grad(logits.sum(), list(model.refinement.parameters()), retain_graph=True)
        assert all(each.any() for each in refining)


@PLAIN
def test_the_gradients_of_a_plain_detector_are_those_of_numerical_differences(family: str) -> None:
    model = detector(family, steps=5, durations=4)
    features, mask = (part[:2, ..., :5] for part in batch())
    names, parameters = zip(*model.named_parameters(), strict=True)
    weights = [torch.randn(2, 5, dtype=torch.float64), torch.randn(2, 2, 4, 5, dtype=torch.float64)]

    def call(x: Tensor, *values: Tensor) -> Tensor:
        found = torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x, mask))
        return (found.start * weights[0] - found.end * weights[0]).sum() + (found.maps[0] * weights[1]).sum()

    assert torch.autograd.gradcheck(call, (features.requires_grad_(), *parameters), fast_mode=True)


def test_another_length_than_the_map_s_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a window of 11 steps; model\.steps is 12"):
        detector("bmn")(torch.zeros(1, C, 11, dtype=torch.float64), torch.ones(1, 11, dtype=torch.bool))


def test_features_that_the_groups_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"groups 2 does not divide features\.dimension 15"):
        ProposalDetector(15, small("bmn"))


@EVERY
def test_the_weights_do_not_depend_on_the_size_of_the_map(family: str) -> None:
    shapes = [
        {name: value.shape for name, value in ProposalDetector(C, small(family, **size)).state_dict().items()}
        for size in ({}, {"steps": 20, "durations": 15})
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "gtad"}, "family 'gtad' needs the section 'graph'"),
        ({"boundaries.kind": "graph"}, "boundaries.kind 'graph' needs the section 'graph'"),
        ({"graph": {"neighbours": 3, "groups": 2, "group_width": 2}}, "nothing here has a graph"),
        ({"durations": 101}, "durations 101 exceeds steps 100"),
        ({"base.width": 250}, "base.width must be a multiple"),
        ({"confidence.kernel": 2}, "must be odd"),
        ({"sampling.kind": "scale_invariant"}, "needs a confidence for any segment"),
        ({"proposal_loss.low": 0.8}, "low 0.8 is not below high 0.7"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        proposal_model(changes)


@EVERY
def test_mixed_precision_changes_the_confidences_by_no_more_than_its_rounding(family: str) -> None:
    features, mask = batch()
    model = detector(family).float()
    with torch.no_grad():
        full = model(features.float(), mask)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(features.float(), mask)
    for video in range(len(LENGTHS)):
        for one, other in zip(valid_parts(full, video), valid_parts(half, video), strict=True):
            assert (one - other.float()).abs().max() <= 0.03 * one.abs().max()
