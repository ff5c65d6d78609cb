"""Decoding of a proposal map against a search over all segments."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from rdfa.evaluation.proposal_decode import decode_proposals
from rdfa.models.proposals.detector import ProposalDetector, ProposalMaps
from rdfa.params import compose
from rdfa.schema import Detection
from tests.conftest import ROOT
from tests.models.proposals.settings import FAMILY, small

T, LENGTH = 12, 9


def detection(**changes: Any) -> Detection:
    run = compose(dataset="thumos14", model="rdfa", variant="paper", scale="full", folder=ROOT / "params").run
    everything = {"top_k": 10_000, "score_threshold": 0.0, "min_duration": 0.0}
    return run.detection.model_copy(update=everything | changes)


def maps(family: str) -> ProposalMaps:
    torch.manual_seed(0)
    model = ProposalDetector(16, small(family)).eval()
    for parameter in model.parameters():
        parameter.data.mul_(2)
    mask = torch.arange(T)[None] < LENGTH
    with torch.inference_mode():
        found: ProposalMaps = model(torch.randn(1, 16, T), mask)
    return found


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def searched(found: ProposalMaps, score: str) -> list[tuple[float, float, float]]:
    """Score, start and end of every segment inside the video, best first."""
    rows = []
    for index, (start, end) in enumerate(found.segments[0].tolist()):
        if end > LENGTH - 0.5 + 1e-4:
            continue
        confidence = sigmoid(float(found.logits[-1][0, 0, index])) * sigmoid(float(found.logits[-1][0, 1, index]))
        if score == "boundaries_times_confidence":
            first, last = round(start + 0.5), round(end - 0.5)  # the cell's first and last step
            confidence *= sigmoid(float(found.start[0, first])) * sigmoid(float(found.end[0, last]))
        rows.append((confidence, start, end))
    return sorted(rows, key=lambda row: -row[0])


@pytest.mark.parametrize(
    ("family", "score"),
    [(family, "confidence") for family in FAMILY] + [(name, "boundaries_times_confidence") for name in ("bmn", "gtad")],
)
def test_every_segment_inside_the_video_is_a_candidate_best_first(family: str, score: Any) -> None:
    found = maps(family)
    segments, scores, labels = decode_proposals(found, score, detection())
    expected = searched(found, score)
    assert len(scores) == len(expected) and not labels.any() and labels.dtype == np.int64
    np.testing.assert_allclose(scores, [row[0] for row in expected], rtol=1e-4)
    assert (np.diff(scores) <= 0).all()
    for segment, value in zip(segments, scores, strict=True):
        same = [row for row in expected if tuple(segment) == pytest.approx(row[1:], abs=1e-5)]
        assert any(row[0] == pytest.approx(float(value), rel=1e-4) for row in same)


def test_boundaries_of_a_segment_between_steps_are_interpolated() -> None:
    found = maps("bmn")
    found = found._replace(segments=torch.tensor([[[1.75, 5.1]]]), candidate=torch.ones(1, 1, dtype=torch.bool))
    found = found._replace(logits=(torch.zeros(1, 2, 1),))
    start, end = (torch.sigmoid(logits[0]) for logits in (found.start, found.end))
    _, (score,), _ = decode_proposals(found, "boundaries_times_confidence", detection())
    expected = 0.25 * (0.75 * start[2] + 0.25 * start[3]) * (0.4 * end[4] + 0.6 * end[5])
    assert float(score) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("family", ["bmn", "bmn with RCL"])
def test_the_best_stay_and_what_scores_little_or_is_short_goes(family: str) -> None:
    found = maps(family)
    everything = decode_proposals(found, "confidence", detection())
    for each, best in zip(everything, decode_proposals(found, "confidence", detection(top_k=7)), strict=True):
        np.testing.assert_array_equal(best, each[:7])
    threshold = float(np.median(everything[1]))
    _, scores, _ = decode_proposals(found, "confidence", detection(score_threshold=threshold))
    np.testing.assert_array_equal(scores, everything[1][everything[1] > threshold])
    segments, _, _ = decode_proposals(found, "confidence", detection(min_duration=3.0))
    long = everything[0][:, 1] - everything[0][:, 0] > 3
    assert 0 < len(segments) == long.sum() < len(long)
    np.testing.assert_array_equal(segments, everything[0][long])


def test_a_thinned_cell_is_no_candidate() -> None:
    found = maps("bmn")
    thinned = found._replace(candidate=found.candidate & (torch.arange(found.candidate.shape[1]) % 2 == 0))
    segments, _, _ = decode_proposals(thinned, "confidence", detection())
    assert len(segments) == int(thinned.candidate.sum()) < int(found.candidate.sum())
