"""External video-level class scores: JSON `{video: {class: score}}`, or as others publish them.

Published (OpenTAD, ActionFormer): `{"results": {video: [score of each class]}, "class": [class]}`.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdfa.errors import RdfaError
from rdfa.files import read_json

Scores = Mapping[str, Mapping[str, float]]
"""Video, class name, score."""
_FORMS = '{video: {class: score}} or {"results": {video: [score]}, "class": [class]}'


def read_scores(path: Path) -> Scores:
    """Read external video-level scores.

    Raises:
        RdfaError: absent or of another form.
    """
    content = read_json(path)
    scores = _named(path, content) if isinstance(content, dict) and "results" in content else content
    shaped = isinstance(scores, dict) and all(
        isinstance(row, dict) and all(_is_score(value) for value in row.values()) for row in scores.values()
    )
    if not shaped:
        raise RdfaError(f"{path}: external scores must be a JSON object of the form {_FORMS}")
    return dict(scores)


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _named(path: Path, content: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The published form in ours; a row may be wrapped in a list of its own."""
    classes, rows = content.get("class", content.get("classes")), content["results"]
    if not isinstance(classes, list) or not isinstance(rows, dict):
        raise RdfaError(f"{path}: external scores must be a JSON object of the form {_FORMS}")
    named = {}
    for video, row in rows.items():
        flat = row[0] if isinstance(row, list) and len(row) == 1 and isinstance(row[0], list) else row
        if not isinstance(flat, list) or len(flat) != len(classes):
            raise RdfaError(f"{path}: video {video!r}: not one score for each of the {len(classes)} classes")
        named[video] = dict(zip(classes, flat, strict=True))
    return named
