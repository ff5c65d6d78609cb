"""Feature steps to seconds for features from anywhere: what the file says, what the caller says, what the run says."""

from collections.abc import Iterable

from rdfa.data.feature_files import Timing, VideoFeatures
from rdfa.data.windows import Grid
from rdfa.errors import RdfaError
from rdfa.schema import Run

TOLERANCE = 1e-3
"""Relative difference up to which two statements of one number are the same (the feature store's own check)."""


def settle(run: Run, video: VideoFeatures, given: Timing) -> tuple[Grid, float, frozenset[str]]:
    """The grid of a video's features (before thinning), its duration in seconds, and what nobody said of the video.

    fps, stride and window come from the file, or else from `given`, or else from the run's parameters; the duration
    from the file, or `given`, or else it is the end of the last feature's window.

    Raises:
        RdfaError: file, caller and run contradict each other, with both numbers; or fps is known from none of them.
    """
    found: dict[str, float] = {}
    assumed = set()
    for name in ("fps", "stride", "window"):
        in_file, said, trained = (getattr(source, name) for source in (video.timing, given, run.features))
        _agree(video.place, name, in_file, said, "the command or call says")
        value = in_file if in_file is not None else said
        _agree(video.place, name, value, trained, "the run was trained on")
        if value is None:
            assumed.add(name)
            value = trained
        if value is None:
            raise RdfaError(f"{video.place}: neither the file nor the run's parameters know the fps; give it (--fps)")
        found[name] = float(value)
    grid = Grid(**found)
    end = ((video.shape[0] - 1) * grid.stride + grid.window) / grid.fps
    duration = video.timing.duration if video.timing.duration is not None else given.duration
    _agree(video.place, "duration", video.timing.duration, given.duration, "the command or call says")
    if duration is None:
        assumed.add("duration")
    elif not duration > 0:
        raise RdfaError(f"{video.place}: a duration of {duration:g} s")
    return grid, end if duration is None else float(duration), frozenset(assumed)


def told(run: Run, assumed: Iterable[frozenset[str]]) -> list[str]:
    """A line for each number that came from the run's parameters, or from the features, and not from file or caller."""
    videos = list(assumed)
    lines = []
    for name in ("fps", "stride", "window", "duration"):
        count = sum(name in each for each in videos)
        if count == 0:
            continue
        source = "the end of its last feature" if name == "duration" else f"the run's {getattr(run.features, name):g}"
        lines.append(f"{name} of {count} of {len(videos)} videos is not in the file: {source} is used (--{name})")
    return lines


def _agree(place: str, name: str, first: float | None, second: float | None, who: str) -> None:
    for value in (first, second):
        if value is not None and not value > 0:
            raise RdfaError(f"{place}: {name} is {value:g}, but must be positive")
    if first is not None and second is not None and abs(first - second) > TOLERANCE * second:
        raise RdfaError(f"{place}: {name} is {first:g}, {who} {second:g}")
