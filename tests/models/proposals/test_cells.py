"""Where segments are: cells, sparse grids, continuous segments and the cell nearest to each."""

import math

import pytest
import torch

from rdfa.models.proposals.cells import (
    drawn_segments,
    grid_segments,
    inside_cells,
    inside_segments,
    instantiated_segments,
    kept_cells,
    nearest_cells,
)
from rdfa.schema import Instances, Sampling

D, T = 8, 12
LENGTHS = torch.tensor([12, 7, 3])


def sampling(kind: str) -> Sampling:
    return Sampling.model_validate({"kind": kind, "coordinates": 10})


def test_a_cell_holds_its_steps_and_half_a_step_around_them() -> None:
    segments, inside = grid_segments(D, T), inside_cells(LENGTHS, D, T)
    for d in range(D):
        for s in range(T):
            assert segments[d, s].tolist() == [s - 0.5, s + d + 0.5]
            assert inside[:, d, s].tolist() == [s + d <= length - 1 for length in LENGTHS]
    flat = segments.flatten(0, 1).expand(3, -1, -1)
    assert torch.equal(inside_segments(flat, LENGTHS), inside.flatten(1))


@pytest.mark.parametrize(
    ("kind", "every"),
    [
        ("grid", lambda share: 1),
        ("scale_invariant", lambda share: 1),
        ("sparse_half", lambda share: 2 if share > 50 else 1),
        ("sparse_power", lambda share: 2 ** (share // 20)),
    ],
)
def test_a_sparse_grid_keeps_the_starts_that_its_density_says(kind: str, every) -> None:  # type: ignore[no-untyped-def]
    kept = kept_cells(sampling(kind), 100, 100)
    for share in range(1, 101):
        assert kept[share - 1].nonzero().squeeze(1).tolist() == list(range(0, 100, every(share)))


def test_drawn_segments_lie_inside_and_spread_evenly_over_scales_and_places() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([100, 100, 10, 1])
    segments = drawn_segments(lengths, 50, 20_000)
    assert inside_segments(segments, lengths).all() and (segments[..., 0] >= -0.5 - 1e-4).all()
    duration = segments[..., 1] - segments[..., 0]
    for video, longest in enumerate((50, 50, 10)):
        assert duration[video].min() >= 1 - 1e-4
        assert duration[video].max() <= longest + 1e-3
        share = duration[video].log() / math.log(longest)
        place = (segments[video, :, 0] + 0.5) / (lengths[video] - duration[video]).clamp(min=1e-3)
        for values in (share, place):
            counts = torch.histc(values, 10, 0, 1) / 20_000  # standard deviation of each 0.002
            assert (counts - 0.1).abs().max() < 0.012
    torch.testing.assert_close(segments[3], torch.tensor([-0.5, 0.5]).expand(20_000, 2))


def test_a_part_of_a_batch_draws_what_the_whole_batch_would() -> None:
    lengths = torch.tensor([12, 7, 3, 9])
    torch.manual_seed(0)
    whole = drawn_segments(lengths, D, 5)
    for part in (0, 1):
        torch.manual_seed(0)
        own = drawn_segments(lengths[2 * part : 2 * part + 2], D, 5, (part, 2))
        assert torch.equal(own, whole[2 * part : 2 * part + 2])


def test_instances_are_as_dense_in_every_scale_as_their_durations_say() -> None:
    segments = instantiated_segments(Instances(kind="scale_invariant", scales=5, spacing=0.25), 16, 20)
    assert inside_segments(segments[None], torch.tensor([20])).all() and segments.min() >= -0.5
    durations = segments[:, 1] - segments[:, 0]
    at = 0
    for duration in (1, 2, 4, 8, 16):
        count = (20 - duration) * 4 // duration + 1
        own, at = segments[at : at + count], at + count
        torch.testing.assert_close(durations[at - count : at], torch.full((count,), float(duration)))
        torch.testing.assert_close(own[1:, 0] - own[:-1, 0], torch.full((count - 1,), duration / 4))
        assert float(own[0, 0] + own[-1, 1]) == pytest.approx(19)  # centred in the window
    assert at == len(segments)


def test_the_nearest_cell_is_the_nearest_in_duration_then_in_centre() -> None:
    torch.manual_seed(0)
    inside = drawn_segments(LENGTHS, 2 * D, 40)
    segments = torch.cat([inside, inside - 3.3, inside + 4.7], dim=1)  # of those outside, the nearest inside
    cells, relative = nearest_cells(segments, LENGTHS, D, T)
    for video, length in enumerate(LENGTHS.tolist()):
        for index, (start, end) in enumerate(segments[video].tolist()):
            options = [(d, s) for d in range(D) for s in range(T) if s + d < length]
            distance = {(d, s): (abs(end - start - (d + 1)), abs((start + end) / 2 - (s + d / 2))) for d, s in options}
            d, s = min(options, key=distance.__getitem__)
            assert int(cells[video, index]) == d * T + s
            expected = torch.tensor([(start + end) / 2 - (s + d / 2), end - start - (d + 1)])
            torch.testing.assert_close(relative[video, index], expected, atol=1e-5, rtol=0)


def test_the_nearest_cell_of_a_cell_is_the_cell() -> None:
    flat = grid_segments(D, T).flatten(0, 1)
    cells, relative = nearest_cells(flat[None], torch.tensor([T]), D, T)
    inside = inside_cells(torch.tensor([T]), D, T).flatten()
    assert torch.equal(cells[0][inside], torch.arange(D * T)[inside])
    assert not relative[0][inside].any()
