"""`rdfa new-dataset`: parameters for a user's own data, derived from the files; and their refreshment.

In order of reading: `Request`, `new_dataset_stage`, `refresh_stage`, then what is derived and how.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from rdfa.data.annotations import Annotations
from rdfa.data.sources.own import OwnData, read_drafts, read_own_annotations, refuse_strangers
from rdfa.data.sources.own_digest import content_digest
from rdfa.data.sources.own_files import Files, Layout, find_layout, open_files, steps_of, told
from rdfa.data.suggestions import regression_ranges, window_length
from rdfa.errors import RdfaError
from rdfa.files import write_text
from rdfa.params import PARAMS, compose
from rdfa.schema import Name, Run

TRAIN, TEST = ("train", "training"), ("test", "testing", "val", "validation")
"""Names of subsets that speak for themselves, in lower case."""
_DIGEST = re.compile(r'^(\s*sha256:\s*)"?[0-9a-f]{64}"?', re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user says about the files; None: what the files say themselves."""

    name: str
    annotations: Path
    features: Path
    suffix: str | None = None
    layout: Layout | None = None
    stride: int | None = None
    window: int | None = None
    fps: float | None = None
    encoder: str | None = None
    train_subset: str | None = None
    test_subset: str | None = None
    table: bool = False


@dataclass(frozen=True, kw_only=True)
class Described:
    """What was written, and one line about the data."""

    paths: tuple[Path, ...]
    summary: str


def new_dataset_stage(request: Request) -> Described:
    """Write params/datasets/NAME.yaml, and params/tables/NAME.yaml if asked for.

    Raises:
        RdfaError: a name that cannot be one or is taken, files that cannot be read, or something that the files do not
            say and the user must.
    """
    paths = _free_paths(request)
    for option, value in (("stride", request.stride), ("window", request.window), ("fps", request.fps)):
        if value is not None and not (value > 0 and np.isfinite(value)):
            raise RdfaError(f"--{option} is {value:g}, not a positive number")
    files = open_files(request.features, request.suffix)
    drafts, _ = read_drafts(request.annotations)
    known = set(files.videos)
    present = [draft.name for draft in drafts if draft.name in known]
    if not present:
        refuse_strangers(files, [draft.name for draft in drafts])
        raise RdfaError(f"{request.annotations}: holds no video")
    layout, channels = find_layout(files, present, request.layout)
    stride = int(_said(files, present, "stride", request.stride))
    window = int(_said(files, present, "window", request.window))
    rates = [draft.fps for draft in drafts if draft.fps]
    fps = request.fps or _only([*_values(files, present, "fps"), *rates])
    annotations = read_own_annotations(
        request.annotations, files, lambda video: steps_of(files, video, layout), stride, window, fps
    )
    if not annotations.classes:
        raise RdfaError(f"{request.annotations}: no video has an instance")
    train, test = _subsets(request, annotations)
    ranges, length = _suggested(annotations, train, stride, window)
    counts = ", ".join(f"{len(annotations.subset(name).videos)} in {name!r}" for name in annotations.subsets)
    instances = sum(len(video.labels) for video in annotations.videos)
    summary = f"{len(annotations.videos)} videos ({counts}), {instances} instances, {len(annotations.classes)} classes"
    values = {
        "num_classes": len(annotations.classes),
        "train_subset": train,
        "test_subset": test,
        "annotations": request.annotations.as_posix(),
        "features": request.features.as_posix(),
        "suffix": files.suffix,
        "encoder": request.encoder or _encoder(files, present) or "unknown",
        "dimension": channels,
        "stride": stride,
        "window": window,
        "fps": fps,
        "max_length": length,
        "channel_width": max(1, length // 4),
    }
    plain = {
        "name": request.name,
        "layout": layout,
        "sha256": content_digest(request.annotations, request.features, files.suffix),
        "regression_ranges": "[" + ", ".join(f"[{low:g}, {high:g}]" for low, high in ranges) + "]",
        "summary": " ".join(summary.split()),
        "title": json.dumps(f"{request.name}, data of one's own"),
    }
    _write(request.name, paths, plain | {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()})
    return Described(paths=tuple(paths), summary=f"{summary}; features of {channels} channels, layout {layout}")


def refresh_stage(name: str) -> Described:
    """Accept what the files hold now: write their digest into params/datasets/NAME.yaml, and nothing else.

    Raises:
        RdfaError: not a data set of one's own, or the files no longer fit its other parameters: which.
    """
    path = PARAMS / "datasets" / f"{name}.yaml"
    run = _run(name)
    own = run.source.own
    if own is None:
        raise RdfaError(
            f"{path}: not data of one's own (source.kind is {run.source.kind!r}); there is nothing to refresh"
        )
    text = path.read_text(encoding="utf-8")
    if len(_DIGEST.findall(text)) != 1:
        raise RdfaError(f"{path}: needs exactly one line 'sha256: ...' of 64 hexadecimal digits to refresh")
    data = OwnData(run)
    data.refuse_absent()
    _, channels = find_layout(data.files, [video.name for video in data.annotations.videos], own.layout)
    pairs = (
        ("num_classes", len(data.annotations.classes), run.num_classes),
        ("features.dimension", channels, run.features.dimension),
    )
    wrong = [f"{key} must be {found}, not {said}" for key, found, said in pairs if found != said]
    if wrong:
        raise RdfaError(f"{path}: {' and '.join(wrong)}; edit the file, then refresh again")
    digest = content_digest(Path(own.annotations), Path(own.features), own.suffix)
    write_text(path, _DIGEST.sub(rf'\g<1>"{digest}"', text))
    return Described(paths=(path,), summary="unchanged" if digest == own.sha256 else "the files changed")


def _free_paths(request: Request) -> list[Path]:
    try:
        TypeAdapter(Name).validate_python(request.name)
    except ValidationError as error:
        raise RdfaError(
            f"{request.name!r} cannot be a data set's name: lower-case letters, digits, '_' and '.', "
            "the first a letter or digit"
        ) from error
    paths = [PARAMS / "datasets" / f"{request.name}.yaml"]
    if request.table:
        paths.append(PARAMS / "tables" / f"{request.name}.yaml")
    for path in paths:
        if path.exists():
            raise RdfaError(
                f"{path}: exists; choose another name, or edit the file (changed data: "
                f"rdfa new-dataset {request.name} --refresh)"
            )
    return paths


def _write(name: str, paths: list[Path], values: dict[str, str]) -> None:
    """Fill the templates; whatever is not valid then is taken away again."""
    try:
        for path in paths:
            template = PARAMS / "templates" / f"{path.parent.name.removesuffix('s')}.yaml"
            write_text(path, Template(template.read_text(encoding="utf-8")).substitute(values))
        _run(name)
        _run(name, "released")
    except (OSError, KeyError, ValueError) as error:
        _remove(paths)
        raise RdfaError(f"{PARAMS / 'templates'}: a template cannot be filled ({error})") from error
    except RdfaError:
        _remove(paths)
        raise


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _run(name: str, variant: str = "paper") -> Run:
    return compose(dataset=name, model="rdfa", variant=variant, scale="full").run


def _values(files: Files, videos: Iterable[str], name: str) -> list[float]:
    return [value for video in videos if (value := told(files.attributes(video), name)) is not None]


def _only(values: Iterable[float]) -> float | None:
    """The value if it is always the same one."""
    different = set(values)
    return different.pop() if len(different) == 1 else None


def _said(files: Files, videos: list[str], name: str, given: int | None) -> float:
    """Stride or window: what the user says, which the files must not contradict; else what they say."""
    values = _values(files, videos, name)
    found = _only(values)
    if given is None and found is None:
        what = "differs between videos" if values else "is not told by the files"
        raise RdfaError(f"{files.path}: the {name} of the features {what}; give --{name} in frames")
    if given is not None and any(value != given for value in values):
        raise RdfaError(f"{files.path}: the files say {name} {values[0]:g}, --{name} says {given}")
    return given if given is not None else found  # type: ignore[return-value]


def _encoder(files: Files, videos: list[str]) -> str | None:
    value: Any = files.attributes(videos[0]).get("encoder")
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else None


def _subsets(request: Request, annotations: Annotations) -> tuple[str, str]:
    """The subsets to train and to test on: as given, or those whose names leave no doubt."""

    def choose(given: str | None, names: tuple[str, ...], option: str) -> str:
        there = ", ".join(map(repr, annotations.subsets))
        likely = [subset for subset in annotations.subsets if subset.lower() in names]
        if given is None and len(likely) != 1:
            raise RdfaError(f"{request.annotations}: has the subsets {there}; say with {option} which one it is")
        if given is not None and given not in annotations.subsets:
            raise RdfaError(f"{request.annotations}: has no subset {given!r} ({option}); there are: {there}")
        return given or likely[0]

    train = choose(request.train_subset, TRAIN, "--train-subset")
    return train, choose(request.test_subset, TEST, "--test-subset")


def _suggested(
    annotations: Annotations, subset: str, stride: int, window: int
) -> tuple[list[tuple[float, float]], int]:
    """Regression ranges and window length from the training videos."""
    videos = annotations.subset(subset).videos
    in_steps: Callable[[Any, float | None], Any] = lambda seconds, fps: seconds * fps / stride  # noqa: E731
    lengths = [in_steps(video.duration, video.fps) - window / stride + 1 for video in videos]
    spans = [in_steps(video.segments[:, 1] - video.segments[:, 0], video.fps) for video in videos]
    instances = np.concatenate([np.zeros(0), *spans])
    ranges = regression_ranges(instances[instances > 0])
    return ranges, window_length(np.array(lengths), instances[instances > 0], len(ranges))
