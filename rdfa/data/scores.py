"""External video-level class scores, JSON `{video: {class: score}}`."""

from collections.abc import Mapping
from pathlib import Path

from rdfa.errors import RdfaError
from rdfa.files import read_json

Scores = Mapping[str, Mapping[str, float]]
"""Video, class name, score."""


def read_scores(path: Path) -> Scores:
    """Read external video-level scores.

    Raises:
        RdfaError: absent or of another form.
    """
    scores = read_json(path)
    shaped = isinstance(scores, dict) and all(
        isinstance(row, dict) and all(isinstance(value, int | float) for value in row.values())
        for row in scores.values()
    )
    if not shaped:
        raise RdfaError(f"{path}: external scores must be a JSON object of the form {{video: {{class: score}}}}")
    return dict(scores)
