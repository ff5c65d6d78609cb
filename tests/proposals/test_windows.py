"""Windows that overlap: what training and detection see of a video that does not fit into one."""

from pathlib import Path

import numpy as np
import torch

from rdfa.data.windows import TestWindows, TrainingWindows, passes
from rdfa.identity import paths
from rdfa.stages.fetch import fetch_stage
from rdfa.stages.opened import Data, open_data
from tests.proposals.conftest import Small


def opened(small: Small, root: Path, *overrides: str) -> tuple[TrainingWindows, TestWindows, Data]:
    run = small(overrides=("source.sample.max_instances=40", *overrides)).run
    fetch_stage(run, root, None)
    data = open_data(run, paths(run, root))
    videos = data.annotations.subset(run.train_subset).videos
    arguments = (data.annotations.classes, data.store)
    return TrainingWindows(run, videos, *arguments), TestWindows(run, videos, *arguments), data


def test_every_instance_that_a_window_holds_to_min_kept_is_trained_and_no_other(small: Small, tmp_path: Path) -> None:
    windows, whole, _ = opened(small, tmp_path)
    run = windows.run
    expected, cut = set(), 0
    for video in (whole[index] for index in range(len(whole))):
        starts = [span.start for span in passes(video.features.shape[1], run)]
        for start in starts:
            for first, last in video.segments.tolist():
                inside = min(last, start + 32) - max(first, start)
                if inside >= 0.9 * (last - first) > 0:
                    expected.add((video.video, start, round(max(first - start, 0), 3)))
                    cut += inside < last - first
    found = set()
    for index in range(len(windows)):
        window, (_, span) = windows[0, index], windows.spans[index]
        assert span is not None and len(window.segments) > 0
        assert window.features.shape[1] == span.stop - span.start <= 32
        found |= {(window.video, span.start, round(first, 3)) for first, _ in window.segments.tolist()}
    assert found == expected
    assert cut > 0


def test_neighbouring_windows_share_half_of_what_they_see(small: Small, tmp_path: Path) -> None:
    windows, whole, _ = opened(small, tmp_path)
    longest = max((whole[index] for index in range(len(whole))), key=lambda video: video.features.shape[1])
    plan = passes(longest.features.shape[1], windows.run)
    starts = [span.start for span in plan]
    assert len(plan) > 3 and set(np.diff(starts[:-1]).tolist()) == {16} and starts[-1] - starts[-2] <= 16
    assert plan[-1].stop == longest.features.shape[1]


def test_a_window_is_a_part_of_its_video_in_every_epoch(small: Small, tmp_path: Path) -> None:
    windows, whole, _ = opened(small, tmp_path)
    for index in range(len(windows)):
        number, span = windows.spans[index]
        assert span is not None
        expected = whole[number].features[:, span.start : span.stop]
        assert all(torch.equal(windows[epoch, index].features, expected) for epoch in (0, 3))
