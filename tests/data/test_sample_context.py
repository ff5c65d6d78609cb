"""Planted cues: what decides is far away, what is close decides nothing, and sisters differ in their rhythm alone."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from rdfa.data.annotations import read_annotations
from rdfa.data.features import FeatureStore
from rdfa.data.sources.sample import _draw_splits, _stream, plant, write_sample
from rdfa.data.sources.sample_annotations import Instance, Plan
from rdfa.data.sources.sample_appearance import Appearance
from rdfa.data.sources.sample_events import Event, draw_events
from rdfa.errors import RdfaError
from rdfa.params import compose
from rdfa.schema import Run, Sample

ROOT = Path(__file__).parents[2]
FEW = ("source.sample.train_videos=6", "source.sample.test_videos=3")
Floats = NDArray[np.float64]


def run_of(dataset: str, *overrides: str) -> Run:
    return compose(
        dataset=dataset, model="rdfa", variant="paper", scale="sample", overrides=overrides, folder=ROOT / "params"
    ).run


def sample_of(run: Run) -> Sample:
    assert run.source.sample is not None
    return run.source.sample


class Planted(NamedTuple):
    """A written data set, and what was planted into each of its videos."""

    run: Run
    folder: Path
    appearance: Appearance
    plans: dict[str, Plan]
    events: dict[str, list[Event]]
    features: dict[str, Floats]

    @property
    def step(self) -> float:
        return self.run.features.stride / (self.run.features.fps or 0.0)

    def cued_after(self, video: str) -> bool:
        return bool(self.appearance.cued_after[self.plans[video].labels[0]])

    def judged(self, subset: str) -> list[tuple[str, Event]]:
        """Actions and decoys of a split."""
        store = FeatureStore(self.folder / "features.h5")
        names = [name for name in store.videos if store.split(name) == subset]
        return [(name, event) for name in names for event in self.events[name] if event.like is not None]


@pytest.fixture(scope="module")
def cues(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    run, folder = run_of("cues", "source.sample.train_videos=160"), tmp_path_factory.mktemp("cues")
    write_sample(run, folder)
    sample, fps, statistics = sample_of(run), run.features.fps, run.source.statistics
    assert fps is not None and statistics is not None
    appearance = Appearance.draw(_stream(sample, "appearance"), sample, run.num_classes, run.features.dimension)
    plans = {plan.name: plan for split in _draw_splits(run, statistics, sample, fps).values() for plan in split}
    events = {
        name: draw_events(
            _stream(sample, "video", name),
            _stream(sample, "context", name),
            plan,
            appearance,
            sample,
            run.features.stride / fps,
        )
        for name, plan in plans.items()
    }
    store = FeatureStore(folder / "features.h5")
    features = {name: store.read(name).astype(float) for name in store.videos}
    return Planted(run, folder, appearance, plans, events, features)


@pytest.mark.parametrize(
    ("dataset", "digest"),
    [
        ("thumos14", "df324318e24abb71"),
        ("activitynet", "446b67a51f1f182d"),
        ("fineaction", "b3051f08c665f51c"),
        ("hacs", "2d777531a2a284b5"),
    ],
)
def test_without_cues_the_data_is_what_it_was_before_there_were_any(tmp_path: Path, dataset: str, digest: str) -> None:
    """The digests were taken from the revision before, 9c806f0."""
    write_sample(run_of(dataset, *FEW), tmp_path)
    found = hashlib.sha256((tmp_path / "annotations.json").read_bytes())
    store = FeatureStore(tmp_path / "features.h5")
    for video in sorted(store.videos):
        found.update(store.read(video).tobytes())
    assert found.hexdigest()[:16] == digest


def test_decoys_are_not_annotated_and_change_no_annotation(cues: Planted, tmp_path: Path) -> None:
    write_sample(run_of("cues", "source.sample.train_videos=160", "source.sample.context.decoys=0.0"), tmp_path)
    assert (tmp_path / "annotations.json").read_bytes() == (cues.folder / "annotations.json").read_bytes()
    annotated = sum(len(video.labels) for video in read_annotations(tmp_path / "annotations.json").videos)
    kinds = [event.kind for events in cues.events.values() for event in events]
    assert kinds.count("action") == annotated
    assert 0.8 < kinds.count("decoy") / annotated < 1.2


def test_no_cue_is_near_an_action_or_a_decoy(cues: Planted) -> None:
    least = sample_of(cues.run).context.distance[0] * cues.step
    distances = []
    for events in cues.events.values():
        for event in (event for event in events if event.like is not None):
            for cue in (cue for cue in events if cue.kind == "cue"):
                distances.append(max(cue.start - event.end, event.start - cue.end))
    assert min(distances) >= least - 1e-6


def told_by_cues(cues: Planted, video: str, event: Event) -> float:
    """What a matched filter over the whole video says of an event: above 0 an action, below a decoy."""
    after, length = cues.cued_after(video), sample_of(cues.run).context.steps
    kinds = cues.appearance.cues[int(after)].astype(float)
    seen = cues.features[video] @ (kinds / (kinds**2).sum(1, keepdims=True)).T
    window = np.ones(length) / length
    decoys, actions = (np.convolve(column, window, mode="same") for column in seen.T)
    strength = np.maximum(decoys, actions)
    at = np.arange(len(strength))
    there = (strength > 0.5) & ((at > event.end / cues.step) if after else (at < event.start / cues.step))
    if not there.any():
        return 1.0
    nearest = int(at[there].min() if after else at[there].max())
    nearest += int(np.argmax(strength[nearest : nearest + length])) if after else 0
    begin = max(nearest - length, 0)
    nearest = nearest if after else begin + int(np.argmax(strength[begin : nearest + 1]))
    return float(actions[nearest] - decoys[nearest])


def test_a_filter_over_the_whole_video_tells_actions_from_decoys_in_both_directions(cues: Planted) -> None:
    for after in (False, True):
        right = [
            (told_by_cues(cues, video, event) > 0) == (event.kind == "action")
            for video, event in cues.judged("test")
            if cues.cued_after(video) == after
        ]
        assert len(right) > 50
        assert np.mean(right) > 0.97


def own_extent(cues: Planted, video: str, event: Event) -> Floats:
    """What an event shows by itself: duration, mean features of its halves, their sizes."""
    first, last = int(event.start / cues.step), max(int(event.end / cues.step), int(event.start / cues.step) + 2)
    inside = cues.features[video][first:last]
    halves = np.array_split(inside, 2)
    means = [half.mean(0) for half in halves]
    return np.concatenate([[1.0, event.end - event.start, *(np.abs(half).mean() for half in halves)], *means])


def area_under_curve(scores: Floats, action: NDArray[np.bool_]) -> float:
    return float((scores[action][:, None] > scores[~action]).mean())


def test_an_event_s_own_extent_does_not_tell_whether_it_is_an_action(cues: Planted) -> None:
    (x, y), (tested, truth) = (
        (
            np.array([own_extent(cues, video, event) for video, event in cues.judged(subset)]),
            np.array([event.kind == "action" for _, event in cues.judged(subset)]),
        )
        for subset in ("train", "test")
    )
    weights = np.linalg.solve(x.T @ x + 10 * np.eye(x.shape[1]), x.T @ (2.0 * y - 1))
    assert area_under_curve(tested @ weights, truth) == pytest.approx(0.5, abs=0.1)
    far = np.array([told_by_cues(cues, video, event) for video, event in cues.judged("test")])
    assert area_under_curve(far, truth) > 0.95


def test_most_videos_with_decoys_have_actions_too_so_that_an_average_over_the_video_does_not_tell(
    cues: Planted,
) -> None:
    for after in (False, True):
        videos = [name for name in cues.events if cues.cued_after(name) == after]
        both = [{"action", "decoy"} <= {event.kind for event in cues.events[name]} for name in videos]
        assert np.mean(both) > 0.6


@pytest.mark.parametrize("period", [3.0, 8.0])
def test_rhythmic_sisters_differ_in_the_period_of_their_texture_alone(period: float) -> None:
    quiet = [f"source.sample.{name}=0.0" for name in ("noise", "drift", "background", "gain", "distractors")]
    run = run_of("cues", *quiet, f"source.sample.rhythm.periods=[{period}]", "source.sample.context.decoys=0.0")
    sample = sample_of(run)
    appearance = Appearance.draw(_stream(sample, "appearance"), sample, run.num_classes, run.features.dimension)
    np.testing.assert_array_equal(appearance.phases[0], appearance.phases[1])
    np.testing.assert_array_equal(appearance.textures[0], appearance.textures[1])
    texture = appearance.textures[0].astype(float)
    spectra = []
    for label in (0, 1):
        plan = Plan(name="v", duration=128.0, instances=(Instance(start=0.0, end=128.0, label=label),))
        features = plant(_stream(sample, "video", "v"), plan, appearance, sample, run.features, fps=30.0).astype(float)
        swing = features @ texture / (texture @ texture)
        spectra.append(np.abs(np.fft.rfft(swing[:110] - swing[:110].mean())))  # within the onset's phase or not: both
    frequencies = np.fft.rfftfreq(110)
    assert frequencies[3 + np.argmax(spectra[0][3:])] == pytest.approx(1 / period, abs=0.01)
    assert frequencies[3 + np.argmax(spectra[1][3:])] == pytest.approx(1 / (2 * period), abs=0.01)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("source.sample.context.decoys=-1.0", "source.sample.context.decoys"),
        ("source.sample.context.distance=[9.0,3.0]", "source.sample.context: distance: the first is the least"),
        ("source.sample.context.following=1.5", "source.sample.context.following"),
        ("source.sample.context.steps=0", "source.sample.context.steps"),
        ("source.sample.rhythm.periods=[1.0]", "source.sample.rhythm.periods"),
        ("source.sample.ordered=0.5", "ordered and rhythm.share are shares of the same pairs"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(RdfaError, match=message):
        run_of("cues", override)
