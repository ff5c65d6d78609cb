"""The shape of annotations: measured by hand, and measured again from the published files."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdfa.data.annotations import Annotations, Video, read_annotations
from rdfa.data.statistics import measure
from rdfa.params import compose
from rdfa.schema import Statistics

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"


def written(dataset: str) -> Statistics:
    """The statistics in the data set's parameter file."""
    run = compose(dataset=dataset, model="rdfa", variant="paper", scale="sample", folder=ROOT / "params").run
    assert run.source.statistics is not None
    return run.source.statistics


def published(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is absent")
    return SHARED / name


def lengths(statistics: Statistics) -> tuple[float, ...]:
    """The table of instance durations, whichever it is."""
    table = statistics.instance_seconds or statistics.instance_coverage
    assert table is not None
    return table


def video(name: str, duration: float, *instances: Any) -> Video:
    segments = np.array([instance[:2] for instance in instances], dtype=float).reshape(-1, 2)
    return Video(name, "train", duration, None, segments, tuple(label for *_, label in instances))


def activitynet(path: Path) -> Annotations:
    """Annotations from the TSP project's ground truth: rows of actions, without the background between them."""
    rows: dict[str, list[Any]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found = rows.setdefault(row["video-name"], [float(row["video-duration"])])
            if row["temporal-region-label"] == "Action":
                found.append((float(row["t-start"]), float(row["t-end"]), row["action-label"]))
    videos = tuple(video(name, *found) for name, found in rows.items())
    return Annotations(videos, tuple(sorted({label for each in videos for label in each.labels})))


def test_a_small_data_set_measured_by_hand() -> None:
    videos = (
        video("a", 10.0, (0, 2, "x"), (1, 3, "y"), (3, 4, "x")),
        video("b", 20.0, (5, 15, "x")),
        video("none", 99.0),
    )
    found = measure(Annotations(videos, ("x", "y")), "train", "here")
    assert found.origin == "here"
    assert found.video_seconds == (10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 20.0)
    assert found.instances_per_video[0] == 1 and found.instances_per_video[-1] == 3
    assert lengths(found)[0] == 1 and lengths(found)[5] == 2
    assert found.class_weights[0] == 1 and found.class_weights[-1] == 3
    assert found.overlapping == 0.5, "touching is not overlapping"
    covered = measure(Annotations(videos, ("x", "y")), "train", "here", "coverage")
    assert covered.instance_seconds is None and lengths(covered)[0] == 0.1
    assert lengths(covered)[-1] <= 0.5


def test_a_table_has_the_mean_of_the_data_despite_an_outlier() -> None:
    seconds = [1.0] * 50 + [2.0] * 49 + [400.0]
    videos = tuple(video(f"v{i}", 500.0, (0, end, "x")) for i, end in enumerate(seconds))
    table = lengths(measure(Annotations(videos, ("x",)), "train", ""))
    assert table[-1] < 400
    drawn = np.interp(np.linspace(0, 1, 10_001), np.linspace(0, 1, 11), table)
    assert drawn.mean() == pytest.approx(np.mean(seconds), rel=0.01)


def test_the_written_statistics_of_thumos14_are_those_of_its_annotations() -> None:
    annotations = read_annotations(published("thumos14/thumos14.json"), faulty="mend")
    found = measure(annotations, "Validation", written("thumos14").origin)
    assert found == written("thumos14")


def test_the_written_statistics_of_activitynet_are_those_of_its_annotations() -> None:
    annotations = activitynet(published("activitynet13/activitynet_v1-3_train_tsp_groundtruth.csv"))
    assert len(annotations.videos) == 10_024 and sum(len(each.labels) for each in annotations.videos) == 15_410
    found = measure(annotations, "train", written("activitynet").origin, "coverage")
    assert found == written("activitynet")


def test_the_validation_part_of_activitynet_has_the_same_shape() -> None:
    annotations = activitynet(published("activitynet13/activitynet_v1-3_valid_tsp_groundtruth.csv"))
    assert len(annotations.videos) == 4_926 and sum(len(each.labels) for each in annotations.videos) == 7_654
    found, training = measure(annotations, "train", "", "coverage"), written("activitynet")
    assert np.abs(np.subtract(lengths(found), lengths(training))).max() < 0.02
    assert np.abs(np.subtract(found.video_seconds, training.video_seconds)).max() < 10


@pytest.mark.parametrize(
    ("dataset", "instances", "videos", "classes"),
    [("fineaction", 103_324, 16_732, 106), ("hacs", 139_000, 50_000, 200)],
)
def test_tables_that_are_ours_meet_the_published_totals(
    dataset: str, instances: int, videos: int, classes: int
) -> None:
    statistics = written(dataset)

    def mean(table: Any) -> float:
        return float(np.interp(np.linspace(0, 1, 10_001), np.linspace(0, 1, len(table)), table).mean())

    assert mean(statistics.instances_per_video) == pytest.approx(instances / videos, rel=0.02)
    assert mean(statistics.class_weights) == pytest.approx(instances / classes, rel=0.02)
    if dataset == "fineaction":
        assert mean(lengths(statistics)) == pytest.approx(7.1, rel=0.02)
    else:
        coverage = 40.6 / mean(statistics.video_seconds)
        assert mean(lengths(statistics)) == pytest.approx(coverage, rel=0.05)
