"""From the parts of an archive to the feature store, as one stream: parts, gzip, tar, tensor, HDF5.

Nothing is unpacked to the disk, and no path of the archive is ever used as one. In order of reading: `convert`;
`_members` (what is taken from a tar stream, and what is refused); `_Joined` (the parts as one file, each checked again
while it is read).
"""

import gzip
import hashlib
import io
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Never

from tqdm import tqdm

from rdfa.data.annotations import Video
from rdfa.data.features import FeatureWriter
from rdfa.data.sources.download import checksum
from rdfa.data.sources.hub import Downloads, Listing, Part
from rdfa.data.tensors import arranged, read_tensor
from rdfa.errors import RdfaError
from rdfa.schema import Hub, Run

MOST_BYTES_EACH = 1 << 31
"""Largest tensor file: three hours of 3200 channels at stride 4 in single precision are a third of it."""
MOST_EXPANSION, SLACK = 10, 1 << 26
"""Unpacked bytes per packed byte, and bytes allowed besides: features hardly compress, a bomb a thousandfold."""
_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError)


def convert(
    run: Run, videos: dict[str, Video], listing: Listing, downloads: Downloads, target: Path, source: str
) -> int:
    """Make the feature store `target` of the downloaded parts; it appears when it is whole.

    Args:
        videos: those that the store is to hold, by name.
        source: written beside each video's features.

    Returns:
        How many feature files belong to none of these videos.

    Raises:
        RdfaError: no features of any of them; a part or the archive is damaged (a damaged part is removed, the next
            fetch downloads it again); a hostile member; a tensor that the parameters do not describe; a full disk.
    """
    hub = run.source.hub
    assert hub is not None
    stored: set[str] = set()
    unused = 0
    with (
        FeatureWriter(target) as writer,
        tqdm(total=listing.size, unit="B", unit_scale=True, desc=target.name, disable=None) as bar,
    ):
        for index, _ in enumerate(hub.archives):
            parts = [part for part in listing.parts if part.archive == index]
            with _Joined([downloads.path(part) for part in parts], parts, bar) as joined:
                for member, content in _members(joined, hub):
                    video = videos.get(member)
                    if video is None:
                        unused += 1
                        continue
                    try:
                        if member in stored:
                            raise RdfaError(
                                f"{joined.name}: two members hold the features of video {member!r}; refused"
                            )
                        _add(run, hub, writer, video, content, f"{joined.name}: video {member!r}", source)
                    except RdfaError:
                        joined.check_all()  # is it the disk, or the published archive?
                        raise
                    stored.add(member)
        if not stored:
            raise RdfaError(
                f"{downloads.folder}: no member of the archive is called {hub.prefix}VIDEO{hub.suffix} "
                f"(source.hub.prefix, suffix) with a VIDEO of the annotations, such as {next(iter(videos))}; "
                f"{unused} are so called with other names"
            )
    print(f"{target}: {len(stored)} videos, {unused} feature files not used", file=sys.stderr)
    return unused


def _add(run: Run, hub: Hub, writer: FeatureWriter, video: Video, content: bytes, name: str, source: str) -> None:
    features = arranged(read_tensor(content, name), hub.axes, name)
    if features.shape[1] != run.features.dimension:
        turned = features.shape[0] == run.features.dimension and "mean" not in hub.axes
        raise RdfaError(
            f"{name} has {features.shape[1]} channels, the parameters (features.dimension) say {run.features.dimension}"
            + ("; its axes are the other way round: source.hub.axes" if turned else "")
        )
    fps = run.features.fps or video.fps
    if fps is None:
        raise RdfaError(f"{name}: neither features.fps nor the annotations say its frames per second")
    writer.add(
        video.name,
        video.subset,
        features,
        fps=fps,
        stride=run.features.stride,
        window=run.features.window,
        duration=video.duration,
        encoder=run.features.encoder,
        source=source,
    )


def _members(joined: "_Joined", hub: Hub) -> Iterator[tuple[str, bytes]]:
    """Video and bytes of each tensor file in the archive, in its order.

    Raises:
        RdfaError: the archive is damaged, or no archive, or made to do harm.
    """
    most = MOST_EXPANSION * joined.size + SLACK
    try:
        with (
            gzip.GzipFile(fileobj=io.BufferedReader(joined, 1 << 20)) as whole,
            tarfile.open(fileobj=(unpacked := _Bounded(whole, joined.name, most)), mode="r|") as packed,
        ):
            for info in packed:
                _refuse_hostile(joined.name, info, most)
                name = PurePosixPath(info.name).name
                taken = name.startswith(hub.prefix) and name.endswith(hub.suffix) and info.isfile()
                opened = packed.extractfile(info) if taken else None
                if opened is not None:
                    content = opened.read(info.size + 1)
                    if len(content) != info.size:
                        raise EOFError(f"{info.name} is cut short")
                    yield name.removeprefix(hub.prefix).removesuffix(hub.suffix), content
            while unpacked.read(1 << 20):
                pass  # to the end: gzip's and the parts' checksums stand there
    except _DAMAGE as error:
        joined.check_all()  # is it the disk, or the published archive?
        raise RdfaError(
            f"{joined.name}: all parts are as published, but together they are no whole .tar.gz ({error}); is a part "
            "missing in source.hub.archives?"
        ) from error


def _refuse_hostile(archive: str, info: tarfile.TarInfo, most: int) -> None:
    place = PurePosixPath(info.name)
    if place.is_absolute() or ".." in place.parts or "\\" in info.name:
        raise RdfaError(f"{archive}: member {info.name!r} leads out of the archive; refused")
    if not (info.isfile() or info.isdir()):
        raise RdfaError(f"{archive}: member {info.name!r} is a link or a device, not a file; refused")
    if info.size > MOST_BYTES_EACH or info.offset_data + info.size > most:
        raise RdfaError(f"{archive}: member {info.name!r} unpacks to more than features can; refused")


class _Bounded(io.BufferedIOBase):
    """An unpacked stream that ends in an error after `most` bytes, whatever the archive's headers say."""

    def __init__(self, file: gzip.GzipFile, name: str, most: int) -> None:
        self._file, self._name, self._left = file, name, most

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise RdfaError(f"{self._name}: unpacks to more than features can; refused")
        return data


class _Joined(io.RawIOBase):
    """The parts one after the other; each part's checksum is compared when its last byte has been read."""

    def __init__(self, paths: list[Path], parts: list[Part], bar: "tqdm[Never]") -> None:
        self._todo = list(zip(paths, parts, strict=True))
        self._parts = list(self._todo)
        self._bar = bar
        self._file: io.FileIO | None = None
        self._digest = hashlib.sha256()
        self.name = f"{paths[0].parent}/{parts[0].name}" + (f" and {len(parts) - 1} more" if len(parts) > 1 else "")
        self.size = sum(part.size for part in parts)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while self._todo:
            if self._file is None:
                self._file = io.FileIO(self._todo[0][0])
                self._digest = hashlib.sha256()
            count = self._file.readinto(buffer)
            if count:
                self._digest.update(buffer[:count])
                self._bar.update(count)
                return count
            self._file.close()
            self._file = None
            path, part = self._todo.pop(0)
            if part.checksum.startswith("sha256:") and part.checksum != f"sha256:{self._digest.hexdigest()}":
                raise _harmed(path)
            if self._bar.disable:  # no terminal: a line per part for the log
                print(f"converted {part.name}, {len(self._todo)} parts left", file=sys.stderr, flush=True)
        return 0

    def check_all(self) -> None:
        """Refuse, and remove, the first part that is not what was published any more."""
        for path, part in self._parts:
            if checksum(path, part.checksum.split(":")[0]) != part.checksum:
                raise _harmed(path)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


def _harmed(path: Path) -> RdfaError:
    path.unlink()
    return RdfaError(
        f"{path}: has changed since it was downloaded (wrong checksum); it was removed, run the same command again to "
        "download it anew"
    )
