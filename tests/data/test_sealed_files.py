"""Sealed JSON: harm is an error that says so, a change on purpose is possible, files without a seal are read."""

import json
from pathlib import Path

import pytest

from rdfa.data.detections import collect_detections, read_detections, write_detections
from rdfa.errors import RdfaError
from rdfa.files import read_json, write_json, write_sealed

VALUE = {"mAP": [0.25, 0.5], "name": "é", "nested": {"sealed": "no"}}


def test_what_is_sealed_reads_back_and_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_sealed(path, VALUE)
    assert read_json(path) == VALUE
    content = json.loads(path.read_text(encoding="utf-8"))
    assert list(content) == [*VALUE, "sealed"] and len(content["sealed"]) == 64


def test_a_changed_number_is_refused_and_one_changed_on_purpose_is_not(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_sealed(path, VALUE)
    path.write_text(path.read_text(encoding="utf-8").replace("0.25", "0.75"), encoding="utf-8")
    with pytest.raises(RdfaError, match=r'metrics\.json: damaged: .* remove the entry "sealed"'):
        read_json(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {name: value for name, value in content.items() if name != "sealed"})
    assert read_json(path)["mAP"] == [0.75, 0.5]


def test_detections_are_sealed_in_the_layout_of_the_activitynet_toolkit(tmp_path: Path) -> None:
    path = tmp_path / "detections.json"
    write_detections(path, collect_detections([("v", [[1.5, 2.5]], [0.25], [0]), ("w", [], [], [])], "a"))
    assert set(json.loads(path.read_text())) == {"version", "results", "external_data"}
    assert read_detections(path).scores.tolist() == [0.25]
    path.write_text(path.read_text().replace("0.25", "0.26"))
    with pytest.raises(RdfaError, match=r"detections\.json: damaged"):
        read_detections(path)


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000])
def test_json_that_python_cannot_hold_is_an_error_of_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(RdfaError, match=r"file\.json: not a JSON file"):
        read_json(path)
