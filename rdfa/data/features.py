"""The feature store: one HDF5 file per data set, one group per split, one array (T, C) per video.

In order of reading: `Attributes` (what is known about a video's features), `FeatureWriter` (makes a store,
whole or not at all) and `FeatureStore` (reads one, lazily, in as many processes as there are).

A store's bytes depend on nothing but what was added: no times, no addresses, a fixed format version (readable by
HDF5 1.10 and later). Everything carries a checksum, so that a damaged disk is an error and not a worse mAP.
"""

import math
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from rdfa import schema
from rdfa.data.annotations import Video
from rdfa.data.steady_file import SteadyFile
from rdfa.errors import RdfaError, in_one_line, system_reason
from rdfa.files import written_whole
from rdfa.interruptions import uninterrupted

CHUNK_BYTES = 1 << 20
"""Largest chunk: one read brings a few seconds of wide features or all of a narrow video."""
NAMED = 5
"""How many videos a message names before it only counts."""
DURATION_TOLERANCE = 1.0
"""Seconds by which the store and the annotations may disagree about a video's duration (containers round it)."""
_FORMAT = ("v110", "v110")  # fixed, so that a newer HDF5 writes the same bytes; with checksums of the file's structure
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)  # what h5py raises on damaged files


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """What a store says about the features of one video."""

    fps: float
    """Frames per second of the video."""
    stride: int
    """Frames between two feature vectors."""
    window: int
    """Frames that one feature vector sees."""
    duration: float
    """Seconds of the video."""
    encoder: str
    """Network or sensor that made the features."""
    source: str
    """Digest of what the features were made from."""


class FeatureWriter:
    """Writes a feature store; a context manager. The file appears under its name only when it is whole.

    Raises:
        RdfaError: the disk is full or the folder cannot be written; nothing is left then.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._stack = ExitStack()
        self._bytes: SteadyFile | None = None
        self._file: h5py.File | None = None
        self._videos: set[str] = set()

    def __enter__(self) -> Self:
        temporary = self._stack.enter_context(written_whole(self.path))
        raw = self._stack.enter_context(temporary.open("w+b", buffering=0))
        self._bytes = SteadyFile(raw)
        with uninterrupted():
            self._file = h5py.File(self._bytes, "w", libver=_FORMAT)
        return self

    def add(
        self,
        video: str,
        split: str,
        features: NDArray[np.floating],
        *,
        fps: float,
        stride: int,
        window: int,
        duration: float,
        encoder: str,
        source: str,
    ) -> None:
        """Add the features of one video.

        Args:
            video: name, unique in the store, without `/`.
            split: subset that the video belongs to; becomes an HDF5 group.
            features: (T, C), float16 or float32, finite, not empty.
            fps: frames per second. stride, window: frames. duration: seconds. encoder, source: see `Attributes`.

        Raises:
            RdfaError: features that the reader would refuse, a name given twice, or a full disk.
        """
        assert self._file is not None and self._bytes is not None, "use FeatureWriter in a with statement"
        _refuse_unfit(self.path, video, features)
        for name in (video, split):
            if not name or "/" in name or name == "." or schema.invisible(name):
                raise RdfaError(
                    f"{self.path}: {name!a} cannot be a name in the feature store (empty, '.', with '/' or with "
                    "control characters)"
                )
        if video in self._videos:
            raise RdfaError(f"{self.path}: video {video!r} is given twice")
        self._videos.add(video)
        attributes = Attributes(
            fps=fps, stride=stride, window=window, duration=duration, encoder=encoder, source=source
        )
        rows = math.ceil(len(features) / math.ceil(features.nbytes / CHUNK_BYTES))  # equal chunks, nothing padded
        with uninterrupted():
            array = self._file.require_group(split).create_dataset(
                video, data=features, chunks=(rows, features.shape[1]), fletcher32=True, track_times=False
            )
            for name, value in asdict(attributes).items():
                array.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value
            del array  # HDF5 writes when the last name of it goes
        self._bytes.raise_failure()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._file is not None and self._bytes is not None
        try:
            with uninterrupted():
                self._file.close()
        except KeyboardInterrupt as stop:
            self._stack.__exit__(type(stop), stop, stop.__traceback__)
            raise
        if error is None:
            try:
                self._bytes.raise_failure()
            except OSError as failure:
                self._stack.__exit__(type(failure), failure, failure.__traceback__)
                raise
        return self._stack.__exit__(kind, error, trace)


class FeatureStore:
    """Reads a feature store. Opens the file at the first read, once in each process; can be pickled.

    Raises:
        RdfaError: no such file, not HDF5, truncated, or damaged (from any method that reads).
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._splits: dict[str, str] = {}
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None, "_splits": {}, "_process": 0}

    @property
    def videos(self) -> tuple[str, ...]:
        """Names of all videos, sorted."""
        self._open()
        return tuple(sorted(self._splits))

    def split(self, video: str) -> str:
        """The subset that a video is stored under."""
        self._open()
        if video not in self._splits:
            raise RdfaError(f"{self.path}: no features of video {video!r}")
        return self._splits[video]

    def shape(self, video: str) -> tuple[int, int]:
        """(T, C) of a video, without reading its features."""
        try:
            steps, channels = self._array(video).shape
        except _DAMAGE as error:
            raise self._damaged(error, video) from error
        return int(steps), int(channels)

    def read(self, video: str) -> NDArray[np.float32]:
        """All features of one video, (T, C) float32, finite."""
        try:
            features = self._array(video)[()]
        except _DAMAGE as error:
            raise self._damaged(error, video) from error
        _refuse_unfit(self.path, video, features)
        read: NDArray[np.float32] = features.astype(np.float32)
        return read

    def attributes(self, video: str) -> Attributes:
        """What the store says about one video."""
        try:
            stored = self._array(video).attrs
            values = {field.name: stored[field.name] for field in fields(Attributes)}
            return Attributes(
                fps=float(values["fps"]),
                stride=int(values["stride"]),
                window=int(values["window"]),
                duration=float(values["duration"]),
                encoder=_text(values["encoder"]),
                source=_text(values["source"]),
            )
        except _DAMAGE as error:
            raise self._damaged(error, video) from error

    def check(self, expected: schema.Features, videos: Iterable[Video]) -> None:
        """Refuse a store that is not the one that the parameters and the annotations describe.

        Reads no features, only shapes and attributes: a few seconds for ten thousand videos.

        Args:
            expected: the parameters' section `features`; where its `fps` is null, the annotations' fps counts.
            videos: the videos that will be read, with their durations in seconds.

        Raises:
            RdfaError: with both numbers where they differ; with the names of up to five videos without features.
        """
        self._open()
        videos = list(videos)
        missing = sorted(video.name for video in videos if video.name not in self._splits)
        if missing:
            names = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
            raise RdfaError(f"{self.path}: {len(missing)} of {len(videos)} annotated videos have no features: {names}")
        for video in videos:
            self._check_video(expected, video)

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None

    def _check_video(self, expected: schema.Features, video: Video) -> None:
        attributes, (steps, channels) = self.attributes(video.name), self.shape(video.name)
        pairs: list[tuple[str, float, float | None]] = [
            ("channels", channels, expected.dimension),
            ("stride in frames", attributes.stride, expected.stride),
            ("window in frames", attributes.window, expected.window),
            ("fps", attributes.fps, expected.fps or video.fps),
        ]
        for what, found, asked in pairs:
            if asked is not None and abs(found - asked) > 1e-3 * asked:
                raise RdfaError(
                    f"{self.path}: video {video.name!r} has {what} {found:g}, "
                    f"the parameters or annotations say {asked:g}"
                )
        if steps == 0:
            raise RdfaError(f"{self.path}: the features of video {video.name!r} are empty, shape (0, {channels})")
        if abs(attributes.duration - video.duration) > DURATION_TOLERANCE:
            raise RdfaError(
                f"{self.path}: video {video.name!r} lasts {attributes.duration:g} s, its annotations say "
                f"{video.duration:g} s"
            )

    def _array(self, video: str) -> h5py.Dataset:
        split = self.split(video)
        assert self._file is not None
        group = self._file[split]
        array = group[video] if isinstance(group.get(video, getlink=True), h5py.HardLink) else None
        if not isinstance(array, h5py.Dataset) or array.ndim != 2:
            raise ValueError("not an array (T, C) of this file")
        if array.external or array.is_virtual:
            raise ValueError("its values lie in another file")
        return array

    def _open(self) -> None:
        if self._file is not None and self._process == os.getpid():
            return
        if not self.path.is_file():
            raise RdfaError(f"{self.path}: no such feature store")
        try:
            self._file = h5py.File(self.path, "r", locking="best-effort")
            links = {split: self._file.get(split, getlink=True) for split in self._file}
            if not all(isinstance(link, h5py.HardLink) for link in links.values()):
                raise ValueError("has a link to another place or file")
            self._splits = {video: split for split in links for video in self._file[split]}
        except _DAMAGE as error:
            raise self._damaged(error) from error
        self._process = os.getpid()

    def _damaged(self, error: BaseException, video: str | None = None) -> RdfaError:
        where = f", video {video!r}" if video else ""
        if system := system_reason(error):
            return RdfaError(f"{self.path}{where}: cannot be read ({system})")
        return RdfaError(
            f"{self.path}{where}: not a whole feature store ({in_one_line(error)}); "
            "fetch the data again or copy it anew"
        )


def _refuse_unfit(path: Path, video: str, features: NDArray[np.floating]) -> None:
    """Refuse features that are not (T, C) of half or single precision, empty, or not finite."""
    if features.ndim != 2 or features.dtype not in (np.float16, np.float32):
        raise RdfaError(
            f"{path}: the features of video {video!r} are {features.dtype} {features.shape}, "
            "not float16 or float32 (T, C)"
        )
    if features.size == 0:
        raise RdfaError(f"{path}: the features of video {video!r} are empty, shape {features.shape}")
    finite = np.isfinite(features)
    if not finite.all():
        step, channel = (int(i) for i in np.argwhere(~finite)[0])
        raise RdfaError(
            f"{path}: video {video!r} has the feature {features[step, channel]} at step {step}, channel {channel}"
            f" ({int(finite.size - finite.sum())} of {features.size} are not finite)"
        )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
