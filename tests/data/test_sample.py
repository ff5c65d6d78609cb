"""The sample source: the same bytes for one seed, the statistics that were asked for, the cues that were planned."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from rdfa.data.annotations import read_annotations
from rdfa.data.features import FeatureStore
from rdfa.data.sources.sample import _stream, plant, write_sample
from rdfa.data.sources.sample_annotations import Instance, Plan
from rdfa.data.sources.sample_appearance import Appearance
from rdfa.data.sources.sample_events import draw_events
from rdfa.data.statistics import measure
from rdfa.errors import RdfaError
from rdfa.params import compose
from rdfa.schema import Run, Sample, Statistics

ROOT = Path(__file__).parents[2]
DATASETS = ("thumos14", "activitynet", "fineaction", "hacs")
FEW = ("source.sample.train_videos=6", "source.sample.test_videos=3")


def run_of(dataset: str, *overrides: str) -> Run:
    return compose(
        dataset=dataset,
        model="rdfa",
        variant="paper",
        scale="sample",
        overrides=overrides,
        folder=ROOT / "params",
    ).run


def asked_of(run: Run) -> tuple[Statistics, Sample]:
    """What the run asks of its sample source."""
    assert run.source.statistics is not None and run.source.sample is not None
    return run.source.statistics, run.source.sample


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def mean_of(table: Any) -> float:
    """Mean of a quantile table, as it is drawn from."""
    return float((sum(table) - (table[0] + table[-1]) / 2) / (len(table) - 1))


@pytest.fixture(scope="module", params=DATASETS)
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path, float]:
    run = run_of(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    started = time.perf_counter()
    write_sample(run, folder)
    return run, folder, time.perf_counter() - started


def test_the_files_agree_with_each_other_and_with_the_parameters(planted: tuple[Run, Path, float]) -> None:
    run, folder, _ = planted
    fps = run.features.fps or 0.0
    annotations = read_annotations(folder / "annotations.json")
    assert len(annotations.classes) == run.num_classes
    assert len(annotations.subset(run.train_subset).videos) == asked_of(run)[1].train_videos
    assert len(annotations.subset(run.test_subset).videos) == asked_of(run)[1].test_videos
    store = FeatureStore(folder / "features.h5")
    store.check(run.features, annotations.videos)
    for video in annotations.videos:
        steps, stride, window = store.shape(video.name)[0], run.features.stride, run.features.window
        assert store.split(video.name) == video.subset
        assert (steps - 1) * stride + window <= video.duration * fps + 1e-6 < steps * stride + window
    assert (folder / "external_scores.json").exists() == bool(run.detection.external_classes)


def test_the_planted_statistics_are_near_those_asked_for(planted: tuple[Run, Path, float]) -> None:
    run, folder, _ = planted
    asked, sample = asked_of(run)
    kind: Literal["seconds", "coverage"] = "seconds" if asked.instance_seconds else "coverage"
    found = measure(read_annotations(folder / "annotations.json"), run.train_subset, "", kind)
    cut = [min(value, sample.max_instances) for value in asked.instances_per_video]
    assert mean_of(found.video_seconds) == pytest.approx(mean_of(asked.video_seconds), rel=0.05)
    assert mean_of(found.instances_per_video) == pytest.approx(mean_of(cut), rel=0.1)
    lengths, asked_lengths = getattr(found, f"instance_{kind}"), getattr(asked, f"instance_{kind}")
    assert mean_of(lengths) == pytest.approx(mean_of(asked_lengths), rel=0.1)
    assert lengths[5] == pytest.approx(asked_lengths[5], rel=0.15)
    assert mean_of(found.classes_per_video) == pytest.approx(mean_of(asked.classes_per_video), abs=0.1)
    assert found.overlapping == pytest.approx(asked.overlapping, abs=0.02)
    ordered = np.array(found.class_weights)
    assert ordered[-1] > 1.5 * ordered[5], "the classes have a long tail"


def test_every_class_of_a_test_video_occurs_in_training(planted: tuple[Run, Path, float]) -> None:
    run, folder, _ = planted
    annotations = read_annotations(folder / "annotations.json")
    seen, tested = (
        {label for video in annotations.subset(subset).videos for label in video.labels}
        for subset in (run.train_subset, run.test_subset)
    )
    assert tested <= seen and len(tested) > 10


def test_the_external_classifier_is_right_first_as_often_as_asked(tmp_path: Path) -> None:
    run = run_of("activitynet", "source.sample.train_videos=400", "source.sample.score_accuracy=0.8")
    write_sample(run, tmp_path)
    scores = json.loads((tmp_path / "external_scores.json").read_text())
    videos = read_annotations(tmp_path / "annotations.json").by_name
    assert set(scores) == set(videos)
    right = np.mean([next(iter(named)) in videos[name].labels for name, named in scores.items()])
    assert right == pytest.approx(0.8, abs=0.06)
    second = np.mean([videos[name].labels[0] in list(named)[:2] for name, named in scores.items()])
    assert second > 0.98
    for named in scores.values():
        assert len(named) == 5 and list(named.values()) == sorted(named.values(), reverse=True)
        assert 0 < sum(named.values()) < 1.3 and all(0 < score < 1 for score in named.values())


@pytest.mark.parametrize("dataset", ["thumos14", "activitynet", "cues"])
def test_one_seed_gives_the_same_bytes_in_another_process_with_other_threads(tmp_path: Path, dataset: str) -> None:
    write_sample(run_of(dataset, *FEW), tmp_path / "here")
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests/data')\n"
        "from test_sample import FEW, run_of; from rdfa.data.sources.sample import write_sample\n"
        f"write_sample(run_of({dataset!r}, *FEW), Path({str(tmp_path / 'there')!r}))"
    )
    unlike = {
        "OMP_NUM_THREADS": "2",
        "PYTHONHASHSEED": "7",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    }
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **unlike}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "here") == digests(tmp_path / "there")


def test_another_seed_gives_other_data(tmp_path: Path) -> None:
    write_sample(run_of("hacs", *FEW), tmp_path / "one")
    write_sample(run_of("hacs", *FEW, "source.sample.seed=999"), tmp_path / "other")
    one, other = digests(tmp_path / "one"), digests(tmp_path / "other")
    assert all(one[name] != other[name] for name in ("annotations.json", "features.h5", "external_scores.json"))


def test_training_videos_do_not_depend_on_how_many_test_videos_follow(tmp_path: Path) -> None:
    write_sample(run_of("thumos14", *FEW), tmp_path / "few")
    write_sample(run_of("thumos14", *FEW, "source.sample.test_videos=9"), tmp_path / "more")
    few, more = (FeatureStore(tmp_path / name / "features.h5") for name in ("few", "more"))
    for name in few.videos:
        if few.split(name) == "Validation":
            np.testing.assert_array_equal(few.read(name), more.read(name))


QUIET = (
    "source.sample.noise=0.0",
    "source.sample.drift=0.0",
    "source.sample.background=0.0",
    "source.sample.gain=0.0",
)


def planted_video(run: Run, *instances: Instance, duration: float = 60.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Features and appearance of one hand-made video."""
    _, sample = asked_of(run)
    appearance = Appearance.draw(_stream(sample, "appearance"), sample, run.num_classes, run.features.dimension)
    plan = Plan(name="v", duration=duration, instances=instances)
    rng = _stream(sample, "video", "v")
    features = plant(rng, plan, appearance, sample, run.features, fps=30.0)
    return features.astype(float), appearance.phases


def test_an_action_is_its_onset_then_its_completion_and_nothing_outside() -> None:
    run = run_of("thumos14", *QUIET, "source.sample.distractors=0.0")
    features, phases = planted_video(run, Instance(start=20.0, end=40.0, label=3))
    times = (np.arange(len(features)) * run.features.stride + run.features.window / 2) / 30
    half = run.features.window / 30 / 2
    assert not features[(times < 20 - half) | (times > 40 + half)].any()
    np.testing.assert_allclose(features[np.searchsorted(times, 24.0)], phases[3, 0], atol=2e-3)
    np.testing.assert_allclose(features[np.searchsorted(times, 36.0)], phases[3, 1], atol=2e-3)
    ramp = features @ phases[3, 0] / (phases[3, 0] @ phases[3, 0])
    edge = np.abs(times - 20) < half
    np.testing.assert_allclose(ramp[edge], 0.5 + (times[edge] - 20) / (2 * half), atol=5e-3)


def test_an_action_has_amplitude_one_on_each_channel() -> None:
    _, sample = asked_of(run_of("fineaction"))
    phases = Appearance.draw(_stream(sample, "appearance"), sample, 106, 64).phases
    assert np.sqrt((phases**2).mean()) == pytest.approx(1, abs=0.05)


def test_ordered_sisters_have_the_same_phases_in_the_other_order() -> None:
    sample = asked_of(run_of("hacs"))[1].model_copy(update={"ordered": 1.0})
    phases = Appearance.draw(_stream(sample, "appearance"), sample, 10, 64).phases
    for label in range(0, 10, 2):
        np.testing.assert_array_equal(phases[label], phases[label + 1, ::-1])


def test_other_sisters_have_the_asked_share_in_common() -> None:
    sample = asked_of(run_of("hacs"))[1].model_copy(update={"ordered": 0.0, "actionness": 0.0, "confusable": 0.6})
    phases = Appearance.draw(_stream(sample, "appearance"), sample, 200, 64).phases
    alike = [(phases[i] * phases[i + 1]).mean() for i in range(0, 200, 2)]
    strangers = [(phases[i] * phases[i + 2]).mean() for i in range(0, 198, 2)]
    assert np.mean(alike) == pytest.approx(0.6, abs=0.05)
    assert np.mean(strangers) == pytest.approx(0.0, abs=0.05)


def test_distractors_are_onsets_in_the_background() -> None:
    run = run_of("thumos14", *QUIET, "source.sample.distractors=3.0")
    _, sample = asked_of(run)
    appearance = Appearance.draw(_stream(sample, "appearance"), sample, run.num_classes, run.features.dimension)
    actions = tuple(Instance(start=start, end=start + 8, label=2) for start in (10.0, 40.0, 70.0))
    plan = Plan(name="v", duration=120.0, instances=actions)
    events = draw_events(_stream(sample, "video"), _stream(sample, "context"), plan, appearance, sample, step=0.5)
    distractors = [event for event in events if event.kind == "distractor"]
    assert len(distractors) == 9
    onsets = {phases[0].tobytes() for phases in appearance.phases}
    for event in distractors:
        assert event.phases[0][1].tobytes() in onsets
        assert 0 <= event.start < event.end <= plan.duration and 3 < event.end - event.start < 5
        assert all(event.end <= other.start or other.end <= event.start for other in events if other is not event)


def test_a_video_without_background_has_no_room_for_distractors() -> None:
    run = run_of("hacs", *QUIET, "source.sample.distractors=5.0")
    features, phases = planted_video(run, Instance(start=0.0, end=60.0, label=0))
    assert np.abs(features).max() <= np.abs(phases[0]).max() + 0.01


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("features.fps=null", "set features.fps"),
        ("test_subset=training", "train_subset and test_subset are both 'training'"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RdfaError, match=message):
        write_sample(run_of("hacs", override), tmp_path / "out")
    assert not (tmp_path / "out").exists()
