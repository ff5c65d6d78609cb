"""Video files to clips on a data set's time grid: step i sees `window` frames from frame i * stride on.

Only one clip is in memory at a time. Rotation and pixel-aspect marks of the container are not applied.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdfa.errors import RdfaError

Frame = NDArray[np.uint8]
"""(H, W, 3), red green blue."""
INSTALL = "pip install 'rdfa[video]'"


class VideoFile:
    """The first video stream of a file; a context manager.

    Raises:
        RdfaError: the extra is not installed, no such file, no video in it, or damaged (from `frames` too).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._av = decoder()
        if not path.is_file():
            raise RdfaError(f"{path}: no such video file")
        try:
            self._container = self._av.open(str(path))
            self._stream = next(iter(self._container.streams.video), None)
        except (OSError, ValueError) as error:
            raise RdfaError(f"{path}: not a video file that FFmpeg reads ({_reason(error)})") from error
        if self._stream is None or not self._stream.average_rate:
            self._container.close()
            raise RdfaError(f"{path}: has no video stream with a frame rate")
        self.fps = float(self._stream.average_rate)
        """Frames per second, on average."""
        self._stream.thread_type = "AUTO"

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def frames(self) -> Iterator[tuple[float, Frame]]:
        """Each frame and its time in seconds from the first one."""
        first: float | None = None
        try:
            for index, frame in enumerate(self._container.decode(self._stream)):
                time = float(frame.time) if frame.time is not None else index / self.fps
                first = time if first is None else first
                yield time - first, frame.to_ndarray(format="rgb24")
        except (OSError, ValueError) as error:
            raise RdfaError(f"{self.path}: damaged, cannot be decoded to its end ({_reason(error)})") from error


def decoder() -> Any:
    """The module `av` (PyAV).

    Raises:
        RdfaError: it is not installed; names the command.
    """
    try:
        import av
    except ImportError as error:
        raise RdfaError(f"reading video files needs PyAV: {INSTALL}") from error
    return av


def resample(frames: Iterable[tuple[float, Frame]], source_fps: float, fps: float) -> Iterator[Frame]:
    """Frames at a constant rate: frame j is the one whose time is nearest to j / fps (the earlier of two).

    The last frame counts as shown for 1 / source_fps seconds, so that a video of n frames at its own rate stays itself.

    Args:
        frames: frames with their times in seconds, increasing, the first at 0.
    """
    count, before = 0, None
    for time, frame in frames:
        if before is not None:
            while count / fps <= (before[0] + time) / 2:
                yield before[1]
                count += 1
        before = (time, frame)
    if before is not None:
        while count < round((before[0] + 1 / source_fps) * fps):
            yield before[1]
            count += 1


def clips(frames: Iterable[Frame], window: int, stride: int) -> Iterator[NDArray[np.uint8]]:
    """Clip i, (window, H, W, 3), are frames i * stride to i * stride + window - 1; floor((n - window) / stride) + 1."""
    recent: deque[Frame] = deque(maxlen=window)
    for index, frame in enumerate(frames):
        recent.append(frame)
        first = index + 1 - window
        if first >= 0 and first % stride == 0:
            yield np.stack(recent)


def _reason(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:120]
