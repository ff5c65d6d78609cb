"""A picture of detections over time: one panel per video, one row per class, the darker the surer."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdfa.data.detections import Detections
from rdfa.errors import RdfaError
from rdfa.files import written_whole
from rdfa.reporting.figures import STYLE

MOST_PANELS = 20
"""More videos than this do not make a picture that anybody reads."""
_COLOUR = "#4477aa"


def write_timeline(path: Path, detections: Detections, durations: Sequence[float]) -> None:
    """Draw the detections of up to `MOST_PANELS` videos as SVG; the same detections give the same bytes.

    Args:
        durations: seconds of each of `detections.videos`.

    Raises:
        RdfaError: see `refuse_timeline`, or the file cannot be written.
    """
    refuse_timeline(path, len(detections.videos))
    with matplotlib.style.context(["default", STYLE]):
        figure = timeline_figure(detections, durations)
        with written_whole(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})


def refuse_timeline(path: Path, videos: int) -> None:
    """Refuse a picture that will not be drawn, before the detections are made.

    Raises:
        RdfaError: another format, or too many videos.
    """
    if path.suffix != ".svg":
        raise RdfaError(f"{path}: timelines are drawn as .svg")
    if videos > MOST_PANELS:
        raise RdfaError(f"{path}: a timeline shows up to {MOST_PANELS} videos, not {videos}")


def timeline_figure(detections: Detections, durations: Sequence[float]) -> Figure:
    """The picture itself; see `write_timeline`."""
    of_video = [np.flatnonzero(detections.video_index == index) for index in range(len(detections.videos))]
    present = [np.unique(detections.label_index[rows]) for rows in of_video]
    heights = [max(len(labels), 1) for labels in present]
    figure = Figure(figsize=(10, 0.8 * len(heights) + 0.25 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    for axes, name, rows, labels, duration in zip(panels, detections.videos, of_video, present, durations, strict=True):
        _draw(axes, detections, rows, labels)
        axes.set_xlim(0, duration)
        axes.set_title(f"{name}: {len(rows)} detections, opacity = score", loc="left")
    panels[-1].set_xlabel("seconds")
    return figure


def _draw(axes: Axes, detections: Detections, rows: "np.ndarray", labels: "np.ndarray") -> None:
    for row, label in enumerate(labels.tolist()):
        own = rows[detections.label_index[rows] == label]
        own = own[np.argsort(detections.scores[own], kind="stable")]  # the surest on top
        segments = detections.segments[own]
        axes.broken_barh(
            list(zip(segments[:, 0].tolist(), (segments[:, 1] - segments[:, 0]).tolist(), strict=True)),
            (row - 0.4, 0.8),
            facecolors=[(_COLOUR, alpha) for alpha in np.clip(detections.scores[own], 0.02, 1).tolist()],
        )
    axes.set_yticks(range(len(labels)), [detections.classes[label] for label in labels.tolist()])
    axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
