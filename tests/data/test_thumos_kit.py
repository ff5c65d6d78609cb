"""The THUMOS'14 kit's text files."""

from pathlib import Path

import pytest

from rdfa.data.thumos_kit import CLASS_IDS, read_kit_annotations, read_kit_detections
from rdfa.errors import RdfaError


def test_ground_truth_is_gathered_from_one_file_per_class(tmp_path: Path) -> None:
    (tmp_path / "Diving_test.txt").write_text("v2  1.5 3\nv1 0 1\n\nv2 7 9\n")
    (tmp_path / "Ambiguous_test.txt").write_text("v2 4 5\n")
    (tmp_path / "Diving_val.txt").write_text("v9 1 2\n")
    annotations = read_kit_annotations(tmp_path)
    assert [video.name for video in annotations.videos] == ["v1", "v2"]
    assert annotations.classes == ("Ambiguous", "Diving")
    assert annotations.videos[1].segments.tolist() == [[4, 5], [1.5, 3], [7, 9]]
    assert annotations.videos[1].labels == ("Ambiguous", "Diving", "Diving")
    assert annotations.videos[1].duration == 9
    assert len(read_kit_annotations(tmp_path, "val").videos) == 1


def test_detections_have_their_bounds_put_in_order_and_their_ids_named(tmp_path: Path) -> None:
    file = tmp_path / "d.txt"
    file.write_text("v1.mp4 3 1.5 26 0.25\nv1 0 1 7 0.5\nv2.mpeg 0 1 97 1e-3\n")
    read = read_kit_detections(file)
    assert read.videos == ("v1", "v2")
    assert read.segments.tolist() == [[1.5, 3], [0, 1], [0, 1]]
    assert read.scores.tolist() == [0.25, 0.5, 1e-3]
    assert [read.classes[index] for index in read.label_index] == ["Diving", "BaseballPitch", "VolleyballSpiking"]
    assert list(read.classes) == sorted(CLASS_IDS.values())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("v1 1 2 7", r"line 2 has 4 fields, not 5: 'v1 1 2 7'"),
        ("v1 1 two 7 0.5", r"line 2: could not convert string to float: 'two'"),
        ("v1 1 2 7 nan", r"line 2: nan: not finite"),
        ("v1 1 2 8 0.5", r"line 2: '8' is not the id of a THUMOS'14 detection class"),
        ("v1 1 2 x 0.5", r"line 2: 'x' is not the id"),
    ],
)
def test_a_bad_line_is_told(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "d.txt"
    file.write_text(f"v1 1 2 7 0.5\n{line}\n")
    with pytest.raises(RdfaError, match=message):
        read_kit_detections(file)


def test_absent_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(RdfaError, match=r"has no file CLASS_test.txt"):
        read_kit_annotations(tmp_path)
    with pytest.raises(RdfaError, match=r"d.txt: no such file"):
        read_kit_detections(tmp_path / "d.txt")
