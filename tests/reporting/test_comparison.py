"""Intervals over seeds and videos: what they cover, and when a change is called noise."""

import numpy as np
import pytest

from rdfa.errors import RdfaError
from rdfa.reporting.comparison import Interval, change_of, interval, replicates_of, verdict
from rdfa.schema import Bootstrap

BOOTSTRAP = Bootstrap(replicates=2000, seed=0, confidence=0.95)


def experiment(rng: np.random.Generator, seeds: int, of_seed: float, of_video: float) -> np.ndarray:
    """Replicates (S, R) of an experiment whose true mean is 0: noise of each training, and of the videos drawn.

    The videos are a sample too: the whole set is off by as much as one draw is from it.
    """
    trainings = rng.normal(scale=of_seed, size=(seeds, 1))
    return trainings + rng.normal(scale=of_video) + rng.normal(scale=of_video, size=(1, BOOTSTRAP.replicates))


@pytest.mark.parametrize(("of_seed", "of_video"), [(1.0, 1.0), (0.1, 1.0), (1.0, 0.1)])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_an_interval_holds_the_truth_about_as_often_as_it_says(seeds: int, of_seed: float, of_video: float) -> None:
    rng = np.random.default_rng(seeds)
    found = [interval(experiment(rng, seeds, of_seed, of_video), BOOTSTRAP) for _ in range(300)]
    share = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.91 <= share <= 0.995


def test_one_seed_gives_the_interval_of_the_videos() -> None:
    draws = np.random.default_rng(0).normal(size=(1, 2000))
    found = interval(draws, BOOTSTRAP)
    assert (found.low, found.high) == pytest.approx(np.percentile(draws, [2.5, 97.5]))


def test_what_both_rows_share_cancels_in_a_change() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(scale=5, size=(1, 2000)) + rng.normal(scale=5, size=(3, 1))
    own, other = 90 + shared, 89 + shared + rng.normal(scale=0.1, size=(3, 2000))
    change = interval(change_of(own, other, "own", "other"), BOOTSTRAP)
    assert 0.6 < change.low < 1 < change.high < 1.4
    alone = interval(own, BOOTSTRAP)
    assert alone.high - alone.low > 10


@pytest.mark.parametrize(
    ("low", "high", "seeds", "expected"),
    [
        (-1, 1, 3, "within"),
        (0.1, 2, 3, "outside"),
        (-2, -0.1, 3, "outside"),
        (0, 1, 3, "within"),
        (1, 2, 1, "one seed"),
    ],
)
def test_a_change_is_noise_when_its_interval_holds_zero(low: float, high: float, seeds: int, expected: str) -> None:
    assert verdict(Interval(low, high), seeds) == expected


def test_rows_that_were_drawn_differently_are_not_compared() -> None:
    def result(seed: int, count: int) -> dict[str, object]:
        return {"run": "one", "bootstrap": {"seed": seed, "replicates": count, "average_mAP": [0.5] * count}}

    with pytest.raises(RdfaError, match=r"evaluation\.bootstrap"):
        replicates_of([result(0, 10), result(1, 10)])
    with pytest.raises(RdfaError, match="differ in seeds"):
        change_of(replicates_of([result(0, 10)]), replicates_of([result(0, 10), result(0, 10)]), "one", "two")


def test_a_draw_without_ground_truth_is_left_out() -> None:
    values = [0.5] * 98 + [None, None]
    drawn = replicates_of([{"run": "one", "bootstrap": {"seed": 0, "replicates": 100, "average_mAP": values}}])
    assert interval(drawn, BOOTSTRAP) == (50.0, 50.0)
