"""`rdfa extract`: video files to a feature store, on the time grid of a trained run's data set."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rdfa.data.features import FeatureWriter
from rdfa.errors import RdfaError
from rdfa.files import sha256
from rdfa.identity import PARAMS_YAML
from rdfa.params import read_run
from rdfa.records import intact
from rdfa.video.encoders import Encoder, find_encoder
from rdfa.video.frames import Frame, VideoFile, clips, decoder, resample

SPLIT = "videos"
"""Group of the store that extracted videos are in: they belong to no data set's split."""


def extract_stage(
    videos: Sequence[Path],
    out: Path,
    *,
    encoder: str,
    weights: Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
    stride: int | None = None,
    window: int | None = None,
    fps: float | None = None,
) -> Path:
    """Write the features of video files as a feature store; returns its path.

    Args:
        videos: files; the name without its ending is the video's.
        encoder, weights, device: see `rdfa.video.encoders.find_encoder`.
        checkpoint: folder of a trained run, whose stride, window and fps are taken where they are not given.
        stride, window: frames, counted at `fps`.
        fps: frames per second that the video is resampled to; None for its own.

    Raises:
        RdfaError: a missing extra, file or number; a video that is damaged or shorter than a window; two videos of one
            name; an encoder that does not give finite vectors of one length. Nothing is written then.
    """
    if checkpoint is not None:
        features = read_run(intact(checkpoint / PARAMS_YAML)).features
        stride, window, fps = stride or features.stride, window or features.window, fps or features.fps
    if stride is None or window is None:
        raise RdfaError("extract needs --stride and --window in frames, or --checkpoint with a run that has them")
    if stride < 1 or window < 1 or (fps is not None and not 0 < fps < np.inf):
        raise RdfaError(f"stride {stride}, window {window}, fps {fps}: all must be positive")
    _refuse_names(videos)
    decoder()
    encode = find_encoder(encoder, weights, device)
    with FeatureWriter(out) as writer:
        for path in tqdm(videos, desc="extract", unit="video", disable=None, dynamic_ncols=True):
            with VideoFile(path) as video:
                rate = fps or video.fps
                rows, frames = _encoded(path, video, rate, window, stride, encode)
            writer.add(
                path.stem,
                SPLIT,
                rows,
                fps=rate,
                stride=stride,
                window=window,
                duration=frames / rate,
                encoder=encoder,
                source=sha256(path),
            )
    return out


def _refuse_names(videos: Sequence[Path]) -> None:
    """Refuse files that are not there or share a name, before hours of work on the others are lost by it."""
    seen: set[str] = set()
    for path in videos:
        if not path.is_file():
            raise RdfaError(f"{path}: no such video file")
        if path.stem in seen:
            raise RdfaError(f"{path}: video {path.stem!r} is given twice")
        seen.add(path.stem)


class _Counted:
    """Passes frames on and counts them."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.frames, self.count = frames, 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in self.frames:
            self.count += 1
            yield frame


def _encoded(
    path: Path, video: VideoFile, rate: float, window: int, stride: int, encode: Encoder
) -> tuple[NDArray[np.float32], int]:
    """Vectors (T, C) of a video's clips, and how many frames it has at this rate."""
    seen = _Counted(resample(video.frames(), video.fps, rate))
    rows: list[NDArray[np.float32]] = []
    for clip in clips(seen, window, stride):
        row = np.asarray(encode(clip), dtype=np.float32)
        if row.ndim != 1 or (rows and row.shape != rows[0].shape) or not np.isfinite(row).all():
            raise RdfaError(f"{path}: the encoder gave {row.shape} for clip {len(rows)}, not a finite vector (C,)")
        rows.append(row)
    if not rows:
        raise RdfaError(f"{path}: {seen.count} frames at {rate:g} per second are less than a window of {window}")
    return np.stack(rows), seen.count
