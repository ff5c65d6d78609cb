"""Detection files: what is read, what is refused and in which words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdfa.data.detections import Detections, collect_detections, read_detections, write_detections
from rdfa.errors import RdfaError


def row(label: Any = "x", score: Any = 0.5, segment: Any = (1.0, 2.0), **more: Any) -> dict[str, Any]:
    return {"label": label, "score": score, "segment": segment, **more}


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(content: Any, **top: Any) -> Path:
        path = tmp_path / "detections.json"
        text = content if isinstance(content, str) else json.dumps({"version": "1", "results": content, **top})
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_detections_become_columns_in_the_order_of_the_file(file: Any) -> None:
    read = read_detections(file({"b": [row("z", 1), row("a", -2.5, [0, 0])], "empty": [], "a": [row("z", 3, id=7)]}))
    assert read.videos == ("b", "empty", "a")
    assert read.video_index.tolist() == [0, 0, 2]
    assert read.segments.tolist() == [[1, 2], [0, 0], [1, 2]]
    assert read.scores.tolist() == [1, -2.5, 3]
    assert [read.classes[index] for index in read.label_index] == ["z", "a", "z"]
    assert len(read) == 3


def test_no_detection_at_all_is_a_valid_file(file: Any) -> None:
    contents: list[dict[str, list[Any]]] = [{}, {"a": []}]
    for content in contents:
        read = read_detections(file(content))
        assert len(read) == 0
        assert read.segments.shape == (0, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"the file is empty"),
        ("{", r"not a JSON file"),
        ("[1]", r"needs an object 'results' at the top level"),
        ('{"database": {}}', r"needs an object 'results' at the top level"),
        ({"a": row()}, r"video 'a': its results are not a list"),
        ({"a": None}, r"video 'a': its results are not a list"),
        ({"a": [row(), 5]}, r"video 'a', detection 1: 5 is not an object"),
        ({"a": [{}]}, r"video 'a', detection 0: has no 'label'"),
        ({"a": [{"label": "x", "segment": [1, 2]}]}, r"video 'a', detection 0: has no 'score'"),
        ({"a": [row(), {"label": "x", "score": 1}]}, r"video 'a', detection 1: has no 'segment'"),
        ({"a": [row(segment=[1])]}, r"detection 0: .* is not of the form"),
        ({"a": [row(segment=["1", 2])]}, r"detection 0: .* is not of the form"),
        ({"a": [row(segment=None)]}, r"detection 0: .* is not of the form"),
        ({"a": [row(score="high")]}, r"detection 0: .* is not of the form"),
        ({"a": [row(label=["x"])]}, r"detection 0: .* is not of the form"),
        ({"a": [row(label=3)]}, r"the label 3 is not a name"),
        ({"a": [row(), row(score=float("nan"))]}, r"video 'a', detection 1: score nan is not finite"),
        ({"b": [row()], "a": [row(score=float("inf"))]}, r"video 'a', detection 0: score inf is not finite"),
        ({"a": [row(segment=[1, float("nan")])]}, r"segment \[1.0, nan\] has a bound that is not finite"),
        ({"a": [row(segment=[2, 1]), row(segment=[4, 1])]}, r"segment \[2.0, 1.0\] ends before it starts \(and 1 more"),
    ],
)
def test_a_bad_file_is_told_in_one_line_that_names_it(file: Any, content: Any, message: str) -> None:
    path = file(content)
    with pytest.raises(RdfaError, match=message) as caught:
        read_detections(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_video_listed_twice_is_refused_rather_than_half_forgotten(file: Any) -> None:
    item = json.dumps(row())
    with pytest.raises(RdfaError, match=r"'a' occurs twice in one object"):
        read_detections(file(f'{{"results": {{"a": [{item}], "a": [{item}, {item}]}}}}'))


def test_detections_outside_the_results_are_refused_rather_than_mixed_in(file: Any) -> None:
    with pytest.raises(RdfaError, match=r"has detections outside 'results'"):
        read_detections(file({"a": [row()]}, external_data=[row()]))
    with pytest.raises(RdfaError, match=r"has detections outside 'results'"):
        read_detections(file({"a": [row()]}, external_data={"segment": [1, 2]}))
    assert len(read_detections(file({"a": [row()]}, external_data={"used": True, "details": {"net": "I3D"}}))) == 1


def test_an_absent_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RdfaError, match=r"none.json: no such file"):
        read_detections(tmp_path / "none.json")


NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cf")), min_size=1, max_size=5)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def detections(draw: st.DrawFn) -> Detections:
    classes = draw(st.lists(NAMES, unique=True, min_size=1, max_size=3))
    rows = []
    for name in draw(st.lists(NAMES, unique=True, max_size=4)):
        count = draw(st.integers(0, 3))
        bounds = [sorted((draw(NUMBERS), draw(NUMBERS))) for _ in range(count)]
        labels = [draw(st.integers(0, len(classes) - 1)) for _ in range(count)]
        rows.append((name, np.array(bounds).reshape(-1, 2), [draw(NUMBERS) for _ in range(count)], labels))
    return collect_detections(rows, classes)


@given(written=detections())
@settings(deadline=None, max_examples=50)
def test_what_is_written_reads_back_equal(written: Detections, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("detections") / "detections.json"
    write_detections(path, written)
    read = read_detections(path)
    assert read.videos == written.videos
    assert np.array_equal(read.video_index, written.video_index)
    assert np.array_equal(read.segments, written.segments)
    assert np.array_equal(read.scores, written.scores)
    labels = [read.classes[index] for index in read.label_index]
    assert labels == [written.classes[index] for index in written.label_index]
    assert json.loads(path.read_text(encoding="utf-8"))["results"].keys() == set(written.videos)


def test_float32_results_of_a_detector_are_collected_and_written(tmp_path: Path) -> None:
    segments = np.array([[0.1, 0.2]], dtype=np.float32)
    collected = collect_detections([("a", segments, np.array([0.3], dtype=np.float32), [1]), ("b", [], [], [])], "xy")
    write_detections(tmp_path / "d.json", collected)
    read = read_detections(tmp_path / "d.json")
    assert read.videos == ("a", "b")
    assert read.segments.astype(np.float32).tolist() == segments.tolist()
    assert read.classes == ("y",)


@pytest.mark.parametrize(("score", "end"), [(float("nan"), 2), (0.5, float("inf")), (0.5, 0.5)])
def test_bad_numbers_are_not_written_and_the_old_file_stays(tmp_path: Path, score: float, end: float) -> None:
    path = tmp_path / "d.json"
    path.write_text("old")
    with pytest.raises(RdfaError, match=r"d.json: video 'a', detection 0: (score|segment) .* (finite|starts)"):
        write_detections(path, collect_detections([("a", [[1, end]], [score], [0])], "x"))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
