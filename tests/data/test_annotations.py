"""Annotation files: what is read, what is refused and in which words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdfa.data.annotations import Annotations, Video, read_annotations, write_annotations
from rdfa.errors import RdfaError

SHARED = Path(__file__).resolve().parents[3] / "shared"


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


def video(*segments: Any, **changes: Any) -> dict[str, Any]:
    annotations = [{"segment": list(segment), "label": label} for *segment, label in segments]
    return {"subset": "train", "duration": 10.0, "annotations": annotations, **changes}


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(content: Any, **top: Any) -> Path:
        path = tmp_path / "annotations.json"
        text = content if isinstance(content, str) else json.dumps({"database": content, **top})
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_videos_and_segments_come_in_the_order_of_the_file_and_classes_sorted(file: Any) -> None:
    path = file({"b": video((5, 6, "jump"), (1, 2.5, "dive"), fps=25), "a": video(subset="test")})
    annotations = read_annotations(path)
    first, second = annotations.videos
    assert (first.name, first.subset, first.duration, first.fps, first.labels) == (
        "b",
        "train",
        10,
        25,
        ("jump", "dive"),
    )
    assert first.segments.tolist() == [[5, 6], [1, 2.5]]
    assert (second.name, second.fps, second.segments.shape, second.labels) == ("a", None, (0, 2), ())
    assert annotations.classes == ("dive", "jump")
    assert annotations.label_index == {"dive": 0, "jump": 1}
    assert annotations.by_name["a"] is second
    assert not first.segments.flags.writeable


def test_columns_put_all_instances_below_one_another(file: Any) -> None:
    annotations = read_annotations(file({"b": video((5, 6, "z"), (1, 2, "a")), "c": video(), "a": video((0, 9, "m"))}))
    videos, segments, labels = annotations.columns()
    assert videos.tolist() == [0, 0, 2]
    assert segments.tolist() == [[5, 6], [1, 2], [0, 9]]
    assert labels.tolist() == [2, 0, 1]
    assert Annotations((), ()).columns()[1].shape == (0, 2)


def test_a_subset_is_found_by_its_exact_name_and_keeps_the_classes_of_the_file(file: Any) -> None:
    annotations = read_annotations(file({"a": video((1, 2, "x")), "b": video((1, 2, "y"), subset="Test")}))
    test = annotations.subset("Test")
    assert [video.name for video in test.videos] == ["b"]
    assert test.classes == ("x", "y")
    with pytest.raises(RdfaError, match=r"no video in subset 'test'; subsets that exist: 'Test', 'train'"):
        annotations.subset("test")


def test_a_list_of_classes_in_the_file_fixes_the_label_indices(file: Any) -> None:
    annotations = read_annotations(file({"a": video((1, 2, "y"))}, classes=["x", "y", "z"]))
    assert annotations.label_index["y"] == 1


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["x"], r"unknown class 'y': it labels a segment but is not in the file's classes"),
        (["y", "x"], r"classes must be sorted and unique, but 'y' comes before 'x'"),
        (["y", "y"], r"classes must be sorted and unique, but 'y' comes before 'y'"),
        ("y", r"classes is 'y', not a list of names"),
    ],
)
def test_a_bad_list_of_classes_is_refused(file: Any, classes: Any, message: str) -> None:
    with pytest.raises(RdfaError, match=message):
        read_annotations(file({"a": video((1, 2, "y"))}, classes=classes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"the file is empty"),
        ("nonsense", r"not a JSON file"),
        ('{"database": {', r"not a JSON file"),
        ("[]", r"needs an object 'database' at the top level"),
        ('{"results": {}}', r"needs an object 'database' at the top level"),
        ('{"database": {"a": {}, "a": {}}}', r"'a' occurs twice"),
        ({"a": []}, r"video 'a': \[\] is not an object"),
        ({"a": video(subset=None)}, r"video 'a': subset is None, not a name"),
        ({"a": video(duration="10")}, r"video 'a': duration is '10', not a positive number of seconds"),
        ({"a": video(duration=0)}, r"video 'a': duration is 0, not a positive number"),
        ({"a": video(duration=float("nan"))}, r"video 'a': duration is nan, not a positive number"),
        ({"a": video(fps=-1)}, r"video 'a': fps is -1, not a positive number"),
        ({"a": video(annotations=None)}, r"video 'a': annotations is None, not a list"),
        ({"a": video((1, "x"))}, r"video 'a', annotation 0: .* is not of the form"),
        ({"a": video((1, 2, "x"), (1, "2", "x"))}, r"video 'a', annotation 1: .* is not of the form"),
        ({"a": video((1, 2, None))}, r"video 'a', annotation 0: .* is not of the form"),
        ({"a": video(annotations=["x"])}, r"video 'a', annotation 0: 'x' is not of the form"),
        ({"a": video(annotations=[{"label": "x"}])}, r"video 'a', annotation 0: .* is not of the form"),
        ({"a": video((1, float("nan"), "x"))}, r"video 'a', annotation 0: segment \[1.0, nan\] has .* not finite"),
        ({"a": video((1, float("inf"), "x"))}, r"video 'a', annotation 0: segment \[1.0, inf\] has .* not finite"),
        ({"b": video((1, 2, "x")), "a": video((1, 2, "x"), (5, 5, "x"))}, r"'a', annotation 1: segment \[5.0, 5.0\] "),
        ({"a": video((6, 5, "x"))}, r"segment \[6.0, 5.0\] starts at or after its end"),
        ({"a": video((6, 10.6, "x"))}, r"segment \[6.0, 10.6\] leaves the video, which lasts 10 s"),
        ({"a": video((-0.6, 5, "x"))}, r"segment \[-0.6, 5.0\] leaves the video"),
        ({"a": video((10, 10.2, "x"))}, r"segment \[10.0, 10.2\] leaves the video"),
        ({"a": video((-0.2, -0.1, "x"))}, r"segment \[-0.2, -0.1\] leaves the video"),
        ({"a": video((6, 5, "x"), (6, 50, "x"))}, r"\(and 1 more such\); correct the file"),
    ],
)
def test_a_bad_file_is_told_in_at_most_two_lines_that_name_it(file: Any, content: Any, message: str) -> None:
    path = file(content)
    with pytest.raises(RdfaError, match=message) as caught:
        read_annotations(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).count("\n") <= 1


def test_an_absent_or_unreadable_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RdfaError, match=r"none.json: no such file"):
        read_annotations(tmp_path / "none.json")
    with pytest.raises(RdfaError, match=r"cannot be read"):
        read_annotations(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"database": {"\xe9": 1}}')
    with pytest.raises(RdfaError, match=r"not a JSON file"):
        read_annotations(tmp_path / "latin.json")


def test_what_sticks_out_by_rounding_is_clipped(file: Any) -> None:
    annotations = read_annotations(file({"a": video((-0.5, 4, "x"), (7, 10.5, "x"))}))
    assert annotations.videos[0].segments.tolist() == [[0, 4], [7, 10]]
    assert annotations.faults == ()


def test_faulty_segments_can_be_mended_or_kept_and_are_listed(file: Any) -> None:
    path = file({"a": video((1, 2, "x"), (5, 5, "y"), (8, 70, "z"), (20, 30, "z")), "b": video((9, 10.1, "x"))})
    mended = read_annotations(path, faulty="mend")
    assert mended.videos[0].segments.tolist() == [[1, 2], [8, 10]]
    assert mended.videos[0].labels == ("x", "z")
    assert mended.videos[1].segments.tolist() == [[9, 10]]
    kept = read_annotations(path, faulty="keep")
    assert kept.videos[0].segments.tolist() == [[1, 2], [5, 5], [8, 70], [20, 30]]
    assert kept.videos[1].segments.tolist() == [[9, 10.1]]
    assert mended.faults == kept.faults
    assert len(kept.faults) == 3
    assert kept.faults[0] == "video 'a', annotation 1: segment [5.0, 5.0] starts at or after its end"
    assert mended.classes == ("x", "y", "z")


NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cf")), min_size=1, max_size=5)
TIMES = st.floats(0, 1000, allow_subnormal=False)


@st.composite
def annotations(draw: st.DrawFn) -> Annotations:
    videos = []
    for name in draw(st.lists(NAMES, unique=True, max_size=4)):
        duration = draw(st.floats(1, 1000))
        bounds = draw(st.lists(st.tuples(TIMES, TIMES), max_size=4))
        inside = [sorted(min(bound, duration) for bound in pair) for pair in bounds]
        segments = np.array([pair for pair in inside if pair[0] < pair[1]]).reshape(-1, 2)
        labels = tuple(draw(NAMES) for _ in segments)
        fps = draw(st.none() | st.floats(1, 60))
        videos.append(Video(name, draw(NAMES), duration, fps, segments, labels))
    classes = {label for video in videos for label in video.labels} | set(draw(st.lists(NAMES, max_size=2)))
    return Annotations(tuple(videos), tuple(sorted(classes)))


@given(written=annotations())
@settings(deadline=None, max_examples=50)
def test_what_is_written_reads_back_equal(written: Annotations, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("annotations") / "annotations.json"
    write_annotations(path, written)
    read = read_annotations(path)
    assert read.classes == written.classes
    assert len(read.videos) == len(written.videos)
    for before, after in zip(written.videos, read.videos, strict=True):
        assert (before.name, before.subset, before.duration, before.fps, before.labels) == (
            after.name,
            after.subset,
            after.duration,
            after.fps,
            after.labels,
        )
        assert np.array_equal(before.segments, after.segments)


def test_the_public_thumos14_file_is_read_with_its_30_segments_outside_their_videos() -> None:
    path = shared("data/thumos14/thumos14.json")
    kept = read_annotations(path, faulty="keep")
    assert kept.subsets == ("Test", "Validation")
    assert (len(kept.subset("Test").videos), len(kept.subset("Validation").videos)) == (212, 200)
    assert len(kept.columns()[0]) == 6365
    assert len(kept.classes) == 20
    assert len(kept.faults) == 30
    assert len(read_annotations(path, faulty="mend").columns()[0]) == 6335
    with pytest.raises(RdfaError, match=r"'video_test_0000270', annotation 7: .* \(and 29 more such\)"):
        read_annotations(path)


def test_an_activitynet_sized_file_is_read_with_all_its_segments() -> None:
    annotations = read_annotations(shared("golden/eval_anetlike_gt.json"))
    assert len(annotations.videos) == 4728
    assert len(annotations.columns()[0]) == 7290
    assert annotations.faults == ()
