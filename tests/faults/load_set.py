"""A made-up data set with HACS's counts: its shares of splits, classes and instances; its features are small.

`write_set` writes it as its people publish it (archive, annotations, scores: `rdfa fetch hacs`) and as somebody's own
(one HDF5 file: `rdfa new-dataset`).
"""

import io
import json
import shutil
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from rdfa.data.sources.hub import Listing, Part
from rdfa.files import sha256, write_json
from rdfa.params import compose
from rdfa.schema import Run
from tests.conftest import ROOT, TINY

CHANNELS, STRIDE, WINDOW, FPS = 8, 8, 16, 30.0
SHARE = 37_613 / (37_613 + 5_981)
"""Of training among the annotated videos of HACS Segments (Zhao et al., ICCV 2019)."""
CLASSES = tuple(f"Class {index:03d}" for index in range(200))
FAULTY = 0.0014
"""Share of annotations outside their video, as in ActivityNet-1.3 as published (rdfa.data.annotations)."""
SETTINGS = (
    f"features.dimension={CHANNELS}",
    "source.hub.annotations.sha256=null",
    "source.hub.scores.sha256=null",
    *(setting for setting in TINY if not setting.startswith(("source.", "features.", "training."))),
    "training.batch_size=64",
    "training.epochs=1",
    "training.schedule_epochs=1",
    "training.warmup_epochs=0",
    "training.learning_rate=1e-12",
    "detection.score_threshold=0",
    "detection.min_duration=0",
    "detection.min_score=0",
    "runtime.workers=0",
    "runtime.threads=1",
)
"""A narrow detector for short videos; all counts are HACS's. No score is too low and no weight learns, for how many
detections a video has would else be the weights' choice, different at each size."""
RUN = "hacs-rdfa-paper-full-s0"


def hacs_run() -> Run:
    """The run whose stages are measured."""
    parts = RUN.split("-")
    return compose(dataset=parts[0], model=parts[1], variant=parts[2], scale=parts[3], overrides=SETTINGS).run


def write_set(folder: Path, videos: int) -> None:
    """Write the data set of `videos` videos, and the project's parameters beside it, into `folder`."""
    shutil.copytree(ROOT / "params", folder / "params", dirs_exist_ok=True)
    random = np.random.default_rng(videos)
    counts = np.array(compose_statistics(), dtype=float)
    numbers = np.rint(np.interp(random.random(videos), np.linspace(0, 1, len(counts)), counts)).astype(int)
    steps = random.integers(16, 65, videos)
    database = {_name(index): _video(random, index, videos, int(numbers[index]), int(steps[index]))
                for index in range(videos)}  # fmt: skip
    for place in ("data/hacs", "own", "archive"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    (folder / "own/annotations.json").write_text(json.dumps({"classes": CLASSES, "database": database}))
    _write_own(folder / "own/features.h5", random, database, steps)
    _write_archive(folder, random, database, steps)
    tested = [name for name, video in database.items() if video["subset"] == "validation"]
    scores = {"results": dict(zip(tested, _class_scores(random, tested), strict=True)), "class": CLASSES}
    (folder / "data/hacs/external_scores.json").write_text(json.dumps(scores))
    for name in random.choice(list(database), max(1, round(FAULTY * numbers.sum()))):
        first = database[name]["annotations"][0]["segment"]
        first[1] = database[name]["duration"] + 30.0
    (folder / "data/hacs/annotations.json").write_text(json.dumps({"classes": CLASSES, "database": database}))


def compose_statistics() -> tuple[float, ...]:
    """Quantiles of the instances per video, as params/datasets/hacs.yaml has them."""
    sample = compose(dataset="hacs", model="rdfa", variant="paper", scale="sample", folder=ROOT / "params").run
    assert sample.source.statistics is not None
    return sample.source.statistics.instances_per_video


def _name(index: int) -> str:
    return f"{index:011d}"


def _video(random: Generator, index: int, videos: int, instances: int, steps: int) -> dict[str, Any]:
    duration = round(((steps - 1) * STRIDE + WINDOW) / FPS, 3)
    bounds = np.sort(random.uniform(0, duration, 2 * instances)).reshape(-1, 2)
    bounds[:, 1] = np.maximum(bounds[:, 1], bounds[:, 0] + 0.05).clip(max=duration)
    label = CLASSES[index % len(CLASSES)]
    return {
        "subset": "training" if index < round(SHARE * videos) else "validation",
        "duration": duration,
        "fps": FPS,
        "annotations": [{"segment": segment, "label": label} for segment in bounds.round(3).tolist()],
    }


def _class_scores(random: Generator, videos: list[str]) -> list[list[float]]:
    """Of a classifier that is right: a video's own class first, the next one second.

    Detections of random classes would be of classes without an instance in small sets, which costs nothing to evaluate.
    """
    scores, own = random.dirichlet(np.ones(len(CLASSES)), len(videos)), np.array([int(name) for name in videos])
    for rank, share in enumerate((1.0, 0.5)):
        scores[np.arange(len(videos)), (own + rank) % len(CLASSES)] += share
    rows: list[list[float]] = (scores / scores.sum(1, keepdims=True)).round(5).tolist()
    return rows


def _features(random: Generator, steps: int) -> NDArray[np.float16]:
    return random.standard_normal((steps, CHANNELS), dtype=np.float32).astype(np.float16)


def _write_own(path: Path, random: Generator, database: dict[str, Any], steps: NDArray[Any]) -> None:
    """Chunked, as whoever compresses or appends has it."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"stride": STRIDE, "window": WINDOW, "fps": FPS})
        for name, length in zip(database, steps.tolist(), strict=True):
            file.create_dataset(name, data=_features(random, length), chunks=True)


def _write_archive(folder: Path, random: Generator, database: dict[str, Any], steps: NDArray[Any]) -> None:
    """The archive as one part, and the record of a finished download, so that nobody asks the Hub."""
    run = compose(dataset="hacs", model="rdfa", variant="paper", scale="full", overrides=SETTINGS,
                  folder=ROOT / "params").run  # fmt: skip
    hub = run.source.hub
    assert hub is not None and hub.repository is not None
    part = folder / "archive/hacs.part0"
    with tarfile.open(part, "w:gz", compresslevel=1) as archive:
        for name, length in zip(database, steps.tolist(), strict=True):
            buffer = io.BytesIO()
            torch.save(torch.from_numpy(_features(random, length)), buffer)
            info = tarfile.TarInfo(f"hacs_6b/{hub.prefix}{name}{hub.suffix}")
            info.size = buffer.tell()
            buffer.seek(0)
            archive.addfile(info, buffer)
    one = Part(archive=0, path=part.name, size=part.stat().st_size, checksum=f"sha256:{sha256(part)}")
    listing = Listing(repository=hub.repository, commit="0" * 40, parts=(one,))
    write_json(folder / "archive/listing.json", {**asdict(listing), "parts": [asdict(one)]})
