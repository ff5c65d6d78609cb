"""`rdfa check-data`: every planted fault is found with its place, sound data has none, suggestions can be counted."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rdfa.cli import main
from rdfa.data.suggestions import level_shares, regression_ranges, window_length
from rdfa.reporting.inspection_text import histogram
from tests.conftest import TINY
from tests.data.own_files import GRID, Recording, recordings, workspace, write_features, write_labels


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workspace(tmp_path))
    return tmp_path


@pytest.fixture
def check(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Describe sound recordings, change them, and look at them: exit status and text."""

    def run(change: Callable[[list[Recording]], object] = lambda made: None, *options: str) -> tuple[int, str]:
        made = recordings()
        change(made)
        write_labels(Path("labels.csv"), made)
        write_features(Path("features"), made, "npy")
        described = ["new-dataset", "mine", "--annotations", "labels.csv", "--features", "features", *GRID]
        assert main([*described, "--layout", "TC"]) == 0
        capsys.readouterr()
        return main(["check-data", "mine", *options]), capsys.readouterr().out

    return run


def add(made: list[Recording], *instances: tuple[float, float, str], video: int = 1) -> None:
    made[video].instances += instances


def set_features(made: list[Recording], video: int, values: object) -> None:
    made[video].features = np.asarray(values, dtype=np.float32)


def test_sound_data_has_no_errors_and_its_counts(check: Callable[..., tuple[int, str]]) -> None:
    status, text = check()
    assert status == 0 and text.endswith("0 errors, 0 warnings\n")
    assert "train: 4 videos, 12 instances" in text and "test: 2 videos, 6 instances" in text
    assert [line.split() for line in text.splitlines() if line.startswith(("  a ", "  b "))] == [
        ["a", "3", "6"],
        ["b", "3", "6"],
    ]
    assert "median 1.000, from 1.000 to 1.000" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: add(made, (9.5, 9.4, "a")), "start at or after their end (1): v1 #3 a [9.5, 9.4]"),
        (lambda made: add(made, (3.0, 3.0, "a")), "start at or after their end (1): v1 #3 a [3, 3]"),
        (lambda made: add(made, (20.0, 90.0, "a")), "outside their video (1): v1 #3 a [20, 90] of 26.2 s"),
        (lambda made: add(made, (-2.0, 1.0, "a")), "outside their video (1): v1 #3 a [-2, 1] of 26.2 s"),
        (lambda made: set_features(made, 2, np.full((141, 8), np.nan)), "v2.npy: has the feature nan at step 0"),
        (lambda made: setattr(made[1], "duration", 80.0), "1 such"),
        (
            lambda made: [setattr(each, "subset", "a/b") for each in made[:1]],
            "cannot hold (empty, '.' or with '/') (1): a/b",
        ),
    ],
)
def test_an_error_is_found_with_its_place_and_gives_a_status(
    check: Callable[..., tuple[int, str]], change: Callable[[list[Recording]], object], message: str
) -> None:
    status, text = check(change)
    if message == "1 such":  # one video of six: a warning
        assert status == 0
        assert "warning: features that are longer or shorter than their video (1): v1: 130 steps, 80 s are 399" in text
    else:
        assert status == 1 and "1 errors" in text
        (line,) = (line for line in text.splitlines() if line.startswith("ERROR"))
        assert message in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: add(made, (1.5, 4.25, "a")), "annotations given twice (1): v1 #3 a [1.5, 4.25] as #0"),
        (lambda made: add(made, (4.0, 5.0, "a")), "overlap another one of their class (1): v1 a [4, 5]"),
        (lambda made: add(made, (25.0, 26.4, "a")), "outside their video, which are clipped (1): v1 #3 a [25, 26.4]"),
        (lambda made: add(made, (7.0, 7.1, "a"), video=0), "1 of 13 training instances are shorter than one grid"),
        (lambda made: add(made, (5.0, 6.0, "c")), "classes in 'train' only, on which nothing is measured (1): c"),
        (lambda made: add(made, (5.0, 6.0, "c"), video=5), "classes in 'test' only, which cannot be learnt (1): c"),
        (lambda made: made[0].instances.clear(), "videos without any instance"),
        (lambda made: set_features(made, 3, np.ones((150, 8))), "do not change over the whole video (1): v3"),
        (
            lambda made: [set_features(made, i, each.features * (np.arange(8) != 6)) for i, each in enumerate(made)],
            "channels that have one value in all videos (1): 6",
        ),
        (lambda made: setattr(made[2], "subset", "spare"), "subsets that are not used (1): spare"),
    ],
)
def test_what_a_person_should_look_at_is_a_warning(
    check: Callable[..., tuple[int, str]], change: Callable[[list[Recording]], object], message: str
) -> None:
    status, text = check(change)
    assert status == 0 and "0 errors" in text
    assert any(message in line for line in text.splitlines() if line.startswith("warning")), text


def test_features_without_annotations_and_the_reverse(
    check: Callable[..., tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    check()
    Path("features/v3.npy").rename("features/w3.npy")
    assert main(["check-data", "mine"]) == 1
    text = capsys.readouterr().out
    assert "ERROR: videos without features (1): v3" in text
    assert "warning: features without annotations, unused (1): w3" in text
    assert "ERROR: the files changed since params/datasets/mine.yaml described them" in text


@pytest.mark.parametrize("wrong", ["features.stride=10", "features.fps=50.0"])
def test_a_wrong_stride_or_frame_rate_is_an_error(
    check: Callable[..., tuple[int, str]], capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    check()
    assert main(["check-data", "mine", "--set", wrong]) == 1
    text = capsys.readouterr().out
    assert "features that are longer or shorter than their video: is the stride, the window or fps wrong? (6)" in text


def test_many_places_are_counted_and_not_all_named(check: Callable[..., tuple[int, str]]) -> None:
    _, text = check(lambda made: add(made, *((9.0, 8.0 - i / 10, "a") for i in range(8))))
    (line,) = (line for line in text.splitlines() if line.startswith("ERROR"))
    assert line.count("v1 #") == 5 and "(8)" in line and line.endswith("; and 3 more")


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_picture_is_written_in_both_formats_and_twice_the_same(
    check: Callable[..., tuple[int, str]], ending: str
) -> None:
    check(lambda made: None, "--out", f"one.{ending}")
    assert main(["check-data", "mine", "--out", f"two.{ending}"]) == 0
    content = Path(f"one.{ending}").read_bytes()
    assert content == Path(f"two.{ending}").read_bytes()
    assert content.startswith(b"\x89PNG") if ending == "png" else b"<svg" in content
    assert main(["check-data", "mine", "--out", "three.pdf"]) == 2


@pytest.mark.parametrize("dataset", ["thumos14", "activitynet"])
def test_a_fetched_sample_is_looked_at_too(place: Path, capsys: pytest.CaptureFixture[str], dataset: str) -> None:
    few = [f"--set={setting}" for setting in TINY]
    assert main(["check-data", f"{dataset}-sample", *few]) == 2
    assert "run: rdfa fetch" in capsys.readouterr().err
    assert main(["fetch", f"{dataset}-sample", *few]) == 0
    assert main(["check-data", f"{dataset}-sample", *few]) == 0
    text = capsys.readouterr().out
    assert f"{dataset}-sample: 12 annotated videos" in text and "0 errors" in text
    path = Path("data") / f"{dataset}-sample" / "annotations.json"
    path.write_text(re.sub(r'"segment": \[[^]]*\]', '"segment": [7.0, 5.0]', path.read_text(), count=1))
    assert main(["check-data", f"{dataset}-sample", *few]) == 1
    assert "segments that start at or after their end (1)" in capsys.readouterr().out


def test_levels_double_until_a_long_instance_reaches_the_last() -> None:
    lengths = np.full(100, 60.0)  # half is 30: the level from 16 is reached, one from 32 is not
    ranges = regression_ranges(lengths)
    assert ranges == [(0, 4), (4, 8), (8, 16), (16, 10000)]
    np.testing.assert_array_equal(level_shares(lengths, ranges), [0, 0, 0, 1])
    lengths[0] = 100_000.0  # one outlier among a hundred costs no more than what the 99 % quantile moves
    assert len(regression_ranges(np.append(lengths, np.full(900, 60.0)))) == 4
    assert regression_ranges(np.array([])) == [(0, 10000)]
    assert len(regression_ranges(np.full(9, 1e6))) == 8


def test_a_window_holds_nine_of_ten_videos_and_is_a_multiple_of_the_coarsest_stride() -> None:
    videos = np.array([100.0] * 9 + [1000.0])
    assert window_length(videos, np.array([20.0]), levels=4) == 192  # the 90 % quantile, 190, in eights
    assert window_length(np.array([50_000.0]), np.array([20.0]), levels=6) == 2304
    assert window_length(np.array([50_000.0]), np.array([3000.0]), levels=6) == 6016  # 2 * 3000 in thirty-twos
    assert window_length(np.array([]), np.array([]), levels=6) == 32


def test_a_histogram_counts_every_value_once() -> None:
    values = np.random.default_rng(0).lognormal(2, 1, 500)
    bars = [line.split() for line in histogram(values)[:-1]]
    assert sum(int(bar[3]) for bar in bars) == 500 and len(bars) == 10
    assert histogram(np.array([3.0, 3.0]))[0].split()[3] == "2"
    assert histogram(np.array([])) == ["  none"]
