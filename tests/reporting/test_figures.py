"""The figures of a diagnosis: complete, the same twice, readable by machines where they cannot be by eye."""

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from rdfa.data.annotations import Annotations, Video
from rdfa.data.detections import Detections, collect_detections
from rdfa.errors import RdfaError
from rdfa.evaluation.diagnosis import Diagnosis, diagnose
from rdfa.evaluation.diagnosis.characteristics import ACTIVITYNET, THUMOS14
from rdfa.reporting.figures import (
    false_negative_figure,
    false_positive_figure,
    sensitivity_figure,
    write_figures,
)

pytestmark = pytest.mark.evaluation


def scene(seed: int, noise: float) -> tuple[Annotations, Detections]:
    """20 videos of 100 s with 5 instances of two classes each, and noisy detections of them."""
    random = np.random.default_rng(0)
    starts = np.sort(random.uniform(0, 90, (20, 5)), axis=1)
    segments = np.stack([starts, starts + random.uniform(1, 9, starts.shape)], axis=2)
    labels = random.integers(0, 2, starts.shape)
    videos = tuple(
        Video(f"v{index:02}", "test", 100.0, None, own, tuple("ab"[label] for label in its))
        for index, (own, its) in enumerate(zip(segments, labels, strict=True))
    )
    random = np.random.default_rng(seed)
    rows = []
    for video, its in zip(videos, labels, strict=True):
        shifted = np.sort(np.repeat(video.segments, 3, axis=0) + random.normal(0, noise, (15, 2)), axis=1)
        rows.append((video.name, shifted, random.uniform(size=15), np.repeat(its, 3)))
    return Annotations(videos, ("a", "b")), collect_detections(rows, ("a", "b"))


@pytest.fixture(scope="module")
def runs() -> dict[str, Diagnosis]:
    return {f"run {seed}": diagnose(*scene(seed, noise), [0.3, 0.5]) for seed, noise in ((1, 0.5), (2, 2.0))}


def test_every_figure_is_written_in_both_formats(runs: dict[str, Diagnosis], tmp_path: Path) -> None:
    paths = write_figures(tmp_path, runs, "A data set (sample)")
    names = ["false_positives", "sensitivity", "false_negatives"]
    assert paths == [tmp_path / f"{name}.{ending}" for name in names for ending in ("svg", "png")]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths[1::2])
    assert all("<svg" in path.read_text() for path in paths[::2])
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_the_same_diagnosis_gives_the_same_bytes(runs: dict[str, Diagnosis], tmp_path: Path) -> None:
    one = {"run 1": runs["run 1"]}
    first = write_figures(tmp_path / "first", one, "T")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": "other"}):
        second = write_figures(tmp_path / "second", one, "T")
    for before, after in zip(first, second, strict=True):
        assert before.read_bytes() == after.read_bytes()
    assert not any(re.search(rb"<dc:date>|/home/|tEXtSoftware", path.read_bytes()) for path in first)


def test_settings_of_the_caller_are_left_as_they_were(runs: dict[str, Diagnosis], tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    write_figures(tmp_path, {"run 1": runs["run 1"]}, "T")
    assert dict(mpl.rcParams) == before


def test_every_figure_is_headed_by_the_data_set_and_names_the_runs(runs: dict[str, Diagnosis]) -> None:
    for draw in (false_positive_figure, sensitivity_figure, false_negative_figure):
        figure = draw(runs, "A data set (sample)")
        assert figure.get_suptitle().startswith("A data set (sample): ")
        assert "0.3 to 0.5" in figure.get_suptitle()
        texts = [axes.get_title(loc="left") for axes in figure.axes]
        texts += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert all(any(text.startswith(name) for text in texts) for name in runs)


def test_bars_have_the_heights_of_the_numbers(runs: dict[str, Diagnosis]) -> None:
    run = runs["run 1"]
    left, right = false_positive_figure({"run 1": run}, "T").axes
    stacked = np.array([[bar.get_height() for bar in kind] for kind in left.containers])  # type: ignore[attr-defined]
    assert stacked == pytest.approx(100 * run.false_positives.shares.T)
    gains = [bar.get_height() for kind in right.containers for bar in kind]  # type: ignore[attr-defined]
    assert gains == pytest.approx(100 * run.false_positives.impact)
    (missed,) = false_negative_figure({"run 1": run}, "T").axes
    heights = [bar.get_height() for bar in missed.containers[0]]  # type: ignore[attr-defined]
    assert heights == pytest.approx(100 * np.concatenate([each.missed for each in run.characteristics]))


def test_what_a_bar_means_can_be_told_without_colour(runs: dict[str, Diagnosis]) -> None:
    profile = false_positive_figure({"run 1": runs["run 1"]}, "T").axes[0]
    fills = [kind.patches[0] for kind in profile.containers]  # type: ignore[attr-defined]
    greys = [np.dot(fill.get_facecolor()[:3], (0.299, 0.587, 0.114)) for fill in fills]
    plain = [grey for fill, grey in zip(fills, greys, strict=True) if not fill.get_hatch()]
    assert len({fill.get_hatch() for fill in fills}) == len(fills) - 1
    assert abs(plain[0] - plain[1]) > 0.4


def test_bins_without_instances_and_runs_without_detections_can_be_drawn(tmp_path: Path) -> None:
    annotations, detections = scene(1, 0.5)
    none = collect_detections([], ("a", "b"))
    both = {name: diagnose(annotations, own, [0.5], THUMOS14) for name, own in (("some", detections), ("none", none))}
    assert len(write_figures(tmp_path, both, "T")) == 6
    assert (both["some"].characteristics[2].counts == 0).any()


def test_runs_that_cannot_be_compared_are_refused(runs: dict[str, Diagnosis], tmp_path: Path) -> None:
    other = diagnose(*scene(1, 0.5), [0.3, 0.5], ACTIVITYNET)
    with pytest.raises(RdfaError, match="only if they share ground truth, tIoU thresholds and bins"):
        write_figures(tmp_path, runs | {"other": other}, "T")
    with pytest.raises(RdfaError, match="no diagnosis to draw"):
        write_figures(tmp_path, {}, "T")
    assert list(tmp_path.iterdir()) == []
