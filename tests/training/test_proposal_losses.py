"""Targets and losses of a proposal map against plain loops."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rdfa.models.proposals.detector import ProposalDetector, ProposalMaps
from rdfa.training.proposal_losses import ProposalLosses, proposal_losses
from rdfa.training.proposal_targets import ProposalTargets, best_tiou, proposal_targets
from tests.models.proposals.settings import FAMILY, small

T = 12
ANNOTATED = [
    torch.tensor([[0.7, 4.4], [5.0, 10.6], [5.2, 9.9]]),
    torch.tensor([[-0.37, 2.53]]),
    torch.zeros(0, 2),
]
LENGTHS = (12, 7, 9)


def tiou(first: list[float], second: list[float]) -> float:
    common = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    return common / (first[1] - first[0] + second[1] - second[0] - common)


def batch(family: str, **changes: Any) -> tuple[ProposalMaps, ProposalTargets, Any]:
    torch.manual_seed(0)
    params = small(family, **changes)
    model = ProposalDetector(16, params).double()
    mask = torch.arange(T) < torch.tensor(LENGTHS)[:, None]
    maps = model(torch.randn(3, 16, T, dtype=torch.float64), mask)
    if family.endswith("RCL"):  # continuous segments that hit, too
        hits = torch.tensor([[0.7, 4.5], [5.1, 9.9], [5.0, 10.0]]).expand(3, -1, -1)
        maps = maps._replace(segments=torch.cat([hits, maps.segments[:, 3:]], dim=1))
    return maps, proposal_targets(ANNOTATED, T, params.proposal_loss), params


def test_a_step_s_boundary_target_is_its_share_within_a_step_and_a_half_of_a_boundary() -> None:
    targets = proposal_targets(ANNOTATED, T, small("bmn").proposal_loss)
    for video, segments in enumerate(ANNOTATED):
        for step in range(T):
            for side, found in ((0, targets.start), (1, targets.end)):
                shares = [
                    max(0.0, min(step + 0.5, b + 1.5) - max(step - 0.5, b - 1.5)) for b in segments[:, side].tolist()
                ]
                assert float(found[video, step]) == pytest.approx(max(shares, default=0.0), abs=1e-6)


def test_the_best_tiou_is_the_largest_with_an_annotated_segment() -> None:
    maps, targets, _ = batch("bmn with RCL")
    found = best_tiou(maps.segments, targets.segments)
    for video, annotated in enumerate(ANNOTATED):
        for index, segment in enumerate(maps.segments[video].tolist()):
            expected = max((tiou(segment, each) for each in annotated.tolist()), default=0.0)
            assert float(found[video, index]) == pytest.approx(expected, abs=1e-5)


def each_tensor(maps: ProposalMaps, change: Callable[[Tensor], Tensor]) -> ProposalMaps:
    return ProposalMaps(*(tuple(map(change, part)) if isinstance(part, tuple) else change(part) for part in maps))


def balanced(logits: list[float], positive: list[bool]) -> float:
    """Mean cross-entropy with both kinds weighing a half."""
    share = sum(positive) / len(positive)
    total = 0.0
    for logit, is_positive in zip(logits, positive, strict=True):
        loss = math.log1p(math.exp(-logit if is_positive else logit))
        weight = 1.0
        if 0 < share < 1:
            weight = 0.5 / share if is_positive else 0.5 / (1 - share)
        total += weight * loss
    return total / len(positive)


def squared(logits: list[float], tious: list[float]) -> float:
    """Squared error of the tIoU, middle and low ones counting as many as high ones do."""
    kinds = ["high" if value > 0.7 else "middle" if value > 0.3 else "low" for value in tious]
    total = weights = 0.0
    for logit, value, kind in zip(logits, tious, kinds, strict=True):
        high, own = kinds.count("high"), kinds.count(kind)
        weight = min(1.0, high / own) if high else 1.0
        total += weight * (1 / (1 + math.exp(-logit)) - value) ** 2
        weights += weight
    return total / weights


def expected(maps: ProposalMaps, targets: ProposalTargets, factors: list[float]) -> tuple[float, float, float]:
    maps = each_tensor(maps, lambda x: x.detach())
    boundary = 0.0
    for logits, near in ((maps.start, targets.start), (maps.end, targets.end)):
        pairs = [(float(logits[v, t]), float(near[v, t]) > 0.5) for v in range(3) for t in range(LENGTHS[v])]
        boundary += balanced(*map(list, zip(*pairs, strict=True)))
    chosen = maps.candidate.nonzero().tolist()
    tious = [
        max((tiou(maps.segments[v, i].tolist(), each) for each in ANNOTATED[v].tolist()), default=0.0)
        for v, i in chosen
    ]
    classification = regression = 0.0
    for logits, factor in zip(maps.logits, factors, strict=True):
        first, second = ([float(logits[v, channel, i]) for v, i in chosen] for channel in (0, 1))
        classification += factor * balanced(first, [value > 0.9 for value in tious])
        regression += factor * squared(second, tious)
    return boundary, classification, regression


@pytest.mark.parametrize(
    ("family", "changes", "factors"),
    [
        ("bmn", {}, [1.0]),
        ("bmn", {"sampling__kind": "sparse_power"}, [1.0]),
        ("gtad", {}, [1.0]),
        ("bmn with RCL", {}, [1.0, 0.8 / 1.8, 1.0 / 1.8]),
        ("bmn with RCL", {"refine__supervise": "final"}, [1.0, 0.0, 1.0]),
        ("bmn with RCL", {"refine__iterations": 0}, [1.0]),
        ("gtad with RCL", {"refine__gamma": 0.5, "sampling__kind": "grid"}, [1.0, 1.0 / 3, 2.0 / 3]),
    ],
)
def test_the_losses_are_those_of_plain_loops(family: str, changes: dict[str, Any], factors: list[float]) -> None:
    maps, targets, params = batch(family, **changes)
    found = proposal_losses(maps, targets, params)
    parts = [float(each) for each in (found.boundary, found.classification, found.regression)]
    assert parts == pytest.approx(expected(maps, targets, factors), rel=1e-5)
    assert float(found.total.detach()) == pytest.approx(parts[0] + parts[1] + 5 * parts[2], rel=1e-6)
    hits = best_tiou(maps.segments, targets.segments)[maps.candidate] > 0.9
    assert found.positives == int(hits.sum()) > 0


@pytest.mark.parametrize("supervise", ["every", "final"])
@pytest.mark.parametrize("iterations", [1, 5, 10])
def test_refined_maps_together_weigh_what_the_unrefined_one_does(supervise: str, iterations: int) -> None:
    maps, targets, params = batch("bmn with RCL", refine__iterations=iterations, refine__supervise=supervise)
    found = proposal_losses(maps, targets, params)  # all maps are the same before training
    alone = proposal_losses(maps._replace(logits=maps.logits[:1]), targets, params)
    assert float(found.classification) == pytest.approx(2 * float(alone.classification), rel=1e-9)
    assert float(found.regression) == pytest.approx(2 * float(alone.regression), rel=1e-9)


def test_the_weights_of_the_parts_count() -> None:
    maps, targets, params = batch("bmn")
    loss = params.proposal_loss.model_copy(
        update={"boundary_weight": 2.0, "classification_weight": 3.0, "regression_weight": 7.0}
    )
    found = proposal_losses(maps, targets, params.model_copy(update={"proposal_loss": loss}))
    expected_total = 2 * found.boundary + 3 * found.classification + 7 * found.regression
    torch.testing.assert_close(found.total.detach(), expected_total)


@pytest.mark.parametrize("family", ["bmn", "bmn with RCL"])
def test_the_shares_of_a_batch_add_up_to_its_losses(family: str) -> None:
    maps, targets, params = batch(family)
    whole = proposal_losses(maps, targets, params)
    shares = [slice(0, 1), slice(1, 3)]
    own: list[list[float]] = []
    for rows in shares:  # each share's own counts, then their sums in place of what processes exchange
        proposal_losses(
            each_tensor(maps, lambda x, rows=rows: x[rows]),
            ProposalTargets(*(x[rows] for x in targets)),
            params,
            lambda counts: own.append(list(counts)) or counts,  # type: ignore[func-returns-value]
        )
    summed = [sum(counts) for counts in zip(*own, strict=True)]
    found: list[ProposalLosses] = [
        proposal_losses(
            each_tensor(maps, lambda x, rows=rows: x[rows]),
            ProposalTargets(*(x[rows] for x in targets)),
            params,
            lambda _: summed,
        )
        for rows in shares
    ]
    for name in ("total", "boundary", "classification", "regression"):
        torch.testing.assert_close(sum(getattr(each, name) for each in found), getattr(whole, name))
    assert {each.positives for each in found} == {whole.positives}


@pytest.mark.parametrize("family", FAMILY)
def test_windows_without_annotations_have_finite_losses_and_gradients(family: str) -> None:
    maps, _, params = batch(family)
    targets = proposal_targets([torch.zeros(0, 2)] * 3, T, params.proposal_loss)
    found = proposal_losses(maps, targets, params)
    assert torch.isfinite(found.total) and found.positives == 0
    asked: list[Tensor] = [maps.start, *maps.logits]
    assert all(torch.isfinite(each).all() for each in torch.autograd.grad(found.total, asked, allow_unused=True))


@pytest.mark.parametrize("family", FAMILY)
def test_a_training_step_reaches_every_weight_and_makes_the_loss_smaller(family: str) -> None:
    torch.manual_seed(0)
    params = small(family)
    model = ProposalDetector(16, params)
    features, mask = torch.randn(3, 16, T), torch.arange(T) < torch.tensor(LENGTHS)[:, None]
    targets = proposal_targets(ANNOTATED, T, params.proposal_loss)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    totals = []
    for _ in range(30):
        torch.manual_seed(1)  # the same segments in every step
        found = proposal_losses(model(features, mask), targets, params)
        optimizer.zero_grad()
        found.total.backward()  # type: ignore[no-untyped-call]
        assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
        optimizer.step()
        totals.append(found.total.item())
    assert totals[-1] < 0.7 * totals[0]
