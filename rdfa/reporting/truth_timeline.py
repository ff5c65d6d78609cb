"""Ground truth against detections over time, in videos that are named or chosen by a rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from rdfa.data.annotations import Annotations, Video
from rdfa.data.detections import Detections
from rdfa.errors import RdfaError
from rdfa.evaluation.average_precision import Protocol, mean_average_precision
from rdfa.reporting.drawing import DARK, Drawing, headed
from rdfa.schema import Run

RULE = "the videos of median and of worst AP of {row} (its first seed)"
_FILLS = (("#3d3d3d", ""), ("#b8b8b8", ""))
_TRUTH = ("white", "/////")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A video that is shown, with the AP of the first row in it alone."""

    video: Video
    average: float


def choose_videos(
    truth: Annotations, detections: Detections, tious: Sequence[float], protocol: Protocol, names: Sequence[str] = ()
) -> list[Shown]:
    """The videos called `names`; without names, those of median and worst average AP (ties: by name).

    Raises:
        RdfaError: there is no such video with ground truth.
    """
    judged = {video.name: video for video in truth.videos if len(video.segments)}
    for name in names:
        if name not in judged:
            raise RdfaError(f"--video {name!r}: no video of the test split with ground truth is called so")
    found = []
    for video in (judged[name] for name in names or sorted(judged)):
        alone = Annotations((video,), truth.classes)
        result = mean_average_precision(alone, only(detections, video.name), tious, protocol)
        found.append(Shown(video=video, average=100 * result.average))
    if names:
        return found
    ranked = sorted(found, key=lambda shown: shown.average)
    return [ranked[len(ranked) // 2], ranked[0]] if len(ranked) > 1 else ranked


def only(detections: Detections, video: str) -> Detections:
    """The detections in one video."""
    rows = np.zeros(0, dtype=np.int64)
    if video in detections.videos:
        rows = np.flatnonzero(detections.video_index == detections.videos.index(video))
    return Detections(
        videos=(video,),
        video_index=np.zeros(len(rows), dtype=np.int64),
        segments=detections.segments[rows],
        scores=detections.scores[rows],
        label_index=detections.label_index[rows],
        classes=detections.classes,
    )


def truth_timeline(
    run: Run, videos: Sequence[Shown], detections: Mapping[str, Detections], chosen: str, of_row: str
) -> Drawing:
    """A panel per video, lanes per class: the annotated segments, and each row's best detections below them.

    Args:
        detections: label of a row → its detections; one or two rows.
        chosen: how the videos were chosen, for the caption.
        of_row: the row whose AP stands beside the videos' names.
    """
    lanes = [_lanes(shown.video, detections) for shown in videos]
    heights = [max(len(names), 1) * (1 + len(detections)) for names in lanes]
    figure = Figure(figsize=(9.5, 1.3 + 0.55 * len(videos) + 0.14 * sum(heights)), layout="constrained")
    places = figure.subplots(len(videos), squeeze=False, height_ratios=heights)[:, 0]
    for axes, shown, names in zip(places, videos, lanes, strict=True):
        _draw_video(axes, shown, names, detections)
    places[-1].set_xlabel("seconds")
    handles = [_patch("ground truth", *_TRUTH)]
    handles += [_patch(f"detections: {name}", *fill) for name, fill in zip(detections, _FILLS, strict=False)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    told = "; ".join(
        f"{shown.video.name}, {len(shown.video.segments)} segments of {len(set(shown.video.labels))} classes, "
        f"AP {shown.average:.0f} %"
        for shown in videos
    )
    return Drawing(
        name="timeline",
        title="Ground truth against detections",
        caption=f"Shown: {chosen}. Of each row the first seed, and in each video as many of its best detections as "
        f"there are annotated segments. AP: that of {of_row} in this video alone, mean over tIoU thresholds.",
        alt=f"Annotated and detected segments over time in {told}",
        figure=headed(figure, run, "ground truth against detections"),
    )


def _best(video: Video, detections: Detections) -> tuple[NDArray[np.float64], list[str]]:
    own = only(detections, video.name)
    rows = np.argsort(-own.scores, kind="stable")[: len(video.segments)]
    return own.segments[rows], [own.classes[label] for label in own.label_index[rows].tolist()]


def _lanes(video: Video, detections: Mapping[str, Detections]) -> list[str]:
    """Classes that are annotated or among the best detections."""
    found = (name for own in detections.values() for name in _best(video, own)[1])
    return sorted({*video.labels, *found})


def _draw_video(axes: Axes, shown: Shown, names: Sequence[str], detections: Mapping[str, Detections]) -> None:
    step = 1 + len(detections)
    _draw_segments(axes, shown.video.segments, shown.video.labels, names, step, 0, _TRUTH)
    for number, (own, fill) in enumerate(zip(detections.values(), _FILLS, strict=False), 1):
        segments, labels = _best(shown.video, own)
        _draw_segments(axes, segments, labels, names, step, number, fill)
    for boundary in range(1, len(names)):
        axes.axhline(boundary * step - 0.5, color=DARK, linewidth=0.3)
    axes.set_yticks([index * step + (step - 1) / 2 for index in range(len(names))], names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) * step - 0.4, -0.6)
    axes.set_xlim(0, shown.video.duration)
    count = len(shown.video.segments)
    axes.set_title(f"{shown.video.name}: {count} annotated segments, AP {shown.average:.0f} %", loc="left", fontsize=9)


def _draw_segments(
    axes: Axes,
    segments: NDArray[np.float64],
    labels: Sequence[str],
    names: Sequence[str],
    step: int,
    lane: int,
    fill: tuple[str, str],
) -> None:
    for place, name in enumerate(names):
        own = segments[[label == name for label in labels]]
        axes.broken_barh(
            [(start, end - start) for start, end in own.tolist()],
            (place * step + lane - 0.4, 0.8),
            facecolors=fill[0],
            hatch=fill[1],
            edgecolor="black",
            linewidth=0.6,
        )


def _patch(label: str, colour: str, hatch: str) -> Patch:
    return Patch(facecolor=colour, hatch=hatch, edgecolor="black", linewidth=0.6, label=label)
