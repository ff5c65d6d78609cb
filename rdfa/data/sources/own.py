"""The source for a user's own data: annotations as CSV or ActivityNet JSON, features of NumPy, PyTorch or HDF5.

In order of reading: `write_own`; `OwnData`, the files as one data set, which `rdfa check-data` looks at too;
`read_own_annotations`, where durations and frame rates come from.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rdfa.data.annotations import Annotations, Video, read_annotations, write_annotations
from rdfa.data.annotations_csv import Draft, read_csv
from rdfa.data.features import NAMED, Attributes, FeatureWriter
from rdfa.data.sources.own_digest import content_digest
from rdfa.data.sources.own_files import Files, as_steps, open_files, steps_of, told
from rdfa.errors import RdfaError
from rdfa.schema import Own, Run


def write_own(run: Run, folder: Path) -> None:
    """Write `annotations.json` and `features.h5` from the user's files into `folder`.

    Half-precision features stay so, all others are stored in single precision.

    Raises:
        RdfaError: the files are not those that the parameters describe, or cannot be used: what, and where.
    """
    own = _own(run)
    annotations, features = Path(own.annotations), Path(own.features)
    if content_digest(annotations, features, own.suffix) != own.sha256:
        raise RdfaError(
            f"{run.dataset}: {annotations} or {features} changed since params/datasets/{run.dataset}.yaml described "
            f"them;\nrun `rdfa new-dataset {run.dataset} --refresh`"
        )
    data = OwnData(run)
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "annotations.json"
    write_annotations(written, data.annotations)
    try:
        read_annotations(written, faulty="refuse")
    except RdfaError as error:
        raise RdfaError(str(error).replace(str(written), str(annotations))) from error
    data.refuse_absent()
    with FeatureWriter(folder / "features.h5") as writer:
        for video in data.annotations.videos:
            try:
                writer.add(video.name, video.subset, data.stored(video.name), **vars(data.attributes(video.name)))
            except RdfaError as error:  # about the features; a full disk is another error
                raise RdfaError(str(error).replace(str(writer.path), data.files.place(video.name))) from error


class OwnData:
    """A user's files as a data set; has the reading methods of a feature store.

    Raises:
        RdfaError: the files cannot be read as what the parameters say.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.own = run, _own(run)
        self.files = open_files(Path(self.own.features), self.own.suffix)
        self.videos = self.files.videos
        self.annotations = read_own_annotations(
            Path(self.own.annotations), self.files, self.shape, run.features.stride, run.features.window,
            run.features.fps,
        )  # fmt: skip

    def shape(self, video: str) -> tuple[int, int]:
        """(T, C) of a video, without reading its features."""
        return steps_of(self.files, video, self.own.layout)

    def stored(self, video: str) -> NDArray[np.floating]:
        """All features of one video, (T, C), in the precision in which they are kept."""
        return as_steps(self.files, video, self.own.layout)

    def read(self, video: str) -> NDArray[np.float32]:
        """All features of one video, (T, C) float32, finite."""
        features = np.asarray(self.stored(video), dtype=np.float32)
        wrong = int(features.size - np.isfinite(features).sum())
        if wrong:
            step, channel = (int(i) for i in np.argwhere(~np.isfinite(features))[0])
            raise RdfaError(
                f"{self.files.place(video)}: has the feature {features[step, channel]} at step {step}, channel "
                f"{channel} ({wrong} of {features.size} are not finite)"
            )
        return features

    def attributes(self, video: str) -> Attributes:
        """What is known of a video's features: the parameters where the files say nothing."""
        said, known = self.files.attributes(video), self.annotations.by_name[video]
        assert known.fps is not None, "read_own_annotations gives each video its frame rate"
        return Attributes(
            fps=known.fps,
            stride=int(told(said, "stride") or self.run.features.stride),
            window=int(told(said, "window") or self.run.features.window),
            duration=known.duration,
            encoder=self.run.features.encoder,
            source=self.own.sha256,
        )

    def refuse_absent(self) -> None:
        """Refuse annotations of videos without features, naming the first."""
        refuse_strangers(self.files, [video.name for video in self.annotations.videos])


def read_own_annotations(
    path: Path, files: Files, shape: Callable[[str], tuple[int, int]], stride: int, window: int, fps: float | None
) -> Annotations:
    """Annotations as the file has them, faulty segments included, with the duration and the frame rate of each video.

    A duration is the annotations' own, else what the features say of themselves, else the time that they cover:
    ((T - 1) * stride + window) / fps.

    Args:
        shape: (T, C) of a video's features.  stride, window: frames.  fps: None where it differs by video.

    Raises:
        RdfaError: the file cannot be read, or a video's duration or frame rate is unknown or contradictory.
    """
    drafts, classes = read_drafts(path)
    known = set(files.videos)

    def completed(draft: Draft) -> Video:
        said = files.attributes(draft.name) if draft.name in known else {}
        rate = draft.fps or told(said, "fps") or fps
        if rate is None:
            raise RdfaError(f"{path}: video {draft.name!r}: its frame rate is unknown; give --fps or a column fps")
        if fps is not None and abs(rate - fps) > 1e-3 * fps:
            raise RdfaError(f"{path}: video {draft.name!r} has {rate:g} frames per second, features.fps is {fps:g}")
        duration = draft.duration or told(said, "duration")
        if duration is None and draft.name not in known:
            raise RdfaError(f"{path}: video {draft.name!r} has neither features in {files.path} nor a duration")
        if duration is None:
            duration = ((shape(draft.name)[0] - 1) * stride + window) / rate
        segments = np.array([(start, end) for start, end, _ in draft.instances], dtype=np.float64).reshape(-1, 2)
        labels = tuple(label for *_, label in draft.instances)
        return Video(draft.name, draft.subset, duration, rate, segments, labels)

    return Annotations(tuple(completed(draft) for draft in drafts), classes)


def read_drafts(path: Path) -> tuple[list[Draft], tuple[str, ...]]:
    """The videos of a CSV or ActivityNet JSON file, and the classes, sorted.

    Raises:
        RdfaError: neither, or damaged; where.
    """
    if path.suffix == ".csv":
        drafts = read_csv(path)
        return drafts, tuple(sorted({label for draft in drafts for *_, label in draft.instances}))
    if path.suffix != ".json":
        raise RdfaError(f"{path}: annotations must be a .csv or a .json file (ActivityNet's layout)")
    read = read_annotations(path, faulty="keep")
    drafts = [
        Draft(
            video.name,
            video.subset,
            video.duration,
            video.fps,
            [(start, end, label) for (start, end), label in zip(video.segments.tolist(), video.labels, strict=True)],
        )
        for video in read.videos
    ]
    return drafts, read.classes


def refuse_strangers(files: Files, annotated: list[str]) -> None:
    """Refuse features that lack annotated videos.

    Raises:
        RdfaError: names some of them, and some that are there if none fits: a wrong suffix, perhaps.
    """
    absent = sorted(set(annotated) - set(files.videos))
    if absent:
        names = ", ".join(absent[:NAMED]) + (", ..." if len(absent) > NAMED else "")
        there = f"; there are: {', '.join(files.videos[:3]) or 'none'}" if len(absent) == len(annotated) else ""
        raise RdfaError(
            f"{files.path}: {len(absent)} of {len(annotated)} annotated videos have no features: {names}{there}"
        )


def _own(run: Run) -> Own:
    if run.source.own is None:
        raise RdfaError(f"{run.dataset}: source.kind 'own' needs source.own")
    return run.source.own
