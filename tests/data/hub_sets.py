"""Miniatures of the four data sets as they are published: names, layouts and file forms of the real ones."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rdfa.data.features import FeatureStore
from rdfa.data.fetch import fetch
from rdfa.errors import RdfaError
from rdfa.params import compose
from rdfa.schema import Run
from tests.conftest import ROOT
from tests.data.hub_server import COMMIT, Hub

DATASETS = ("thumos14", "activitynet", "fineaction", "hacs")
CHANNELS = 8
SPLITS = {"thumos14": ("Validation", "Test")}
FOLDERS = {
    "thumos14": "thumos14_6b",
    "activitynet": "activitynet_6b",
    "fineaction": "fineaction_1b",
    "hacs": "hacs_6b",
}
"""What the archives unpack to, as other projects' configurations name it."""
NAMES = {"thumos14": "video_{}_{:07d}", "activitynet": "{:.2}-{:08d}_", "fineaction": "v_{0:.0}{1:08d}"}
Member = tuple[tarfile.TarInfo, bytes]


def full_run(dataset: str, *overrides: str) -> Run:
    """The full-scale run, but with narrow features and whatever annotations are there."""
    always = (f"features.dimension={CHANNELS}", "source.hub.annotations.sha256=null", "source.hub.attempts=2")
    return compose(
        dataset=dataset,
        model="rdfa",
        variant="paper",
        scale="full",
        overrides=(*always, *overrides),
        folder=ROOT / "params",
    ).run


@dataclass
class Published:
    """A miniature: what its people put on the net."""

    run: Run
    annotations: dict[str, Any]
    scores: dict[str, Any] | None
    features: dict[str, NDArray[np.float32]]
    """(T, C) by video."""

    @property
    def repository(self) -> str:
        assert self.run.source.hub is not None
        return self.run.source.hub.repository

    def files(self, count: int = 3) -> dict[str, bytes]:
        """The repository: a README and the parts."""
        return parts(self.repository, archive(self.members()), count) | {
            "README.md": b"features",
            ".gitattributes": b"",
        }

    def members(self) -> list[Member]:
        """The archive's members, one tensor file per video."""
        hub = self.run.source.hub
        assert hub is not None
        folder = FOLDERS[self.run.dataset]
        return [
            member(f"{folder}/{hub.prefix}{video}{hub.suffix}", tensor_file(torch.from_numpy(features)))
            for video, features in self.features.items()
        ]

    def place(self, folder: Path) -> None:
        """Do what a person is asked to do."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "annotations.json").write_text(json.dumps(self.annotations))
        if self.scores is not None:
            (folder / "external_scores.json").write_text(json.dumps(self.scores))


def miniature(dataset: str, *overrides: str, videos: tuple[int, int] = (5, 3), seed: int = 0) -> Published:
    """A miniature of a data set."""
    run = full_run(dataset, *overrides)
    random = np.random.default_rng(seed)
    splits = SPLITS.get(dataset, ("training", "validation"))
    labels = [f"Class {index:03d}" for index in range(run.num_classes)]
    database: dict[str, Any] = {}
    features: dict[str, NDArray[np.float32]] = {}
    number = 0
    for split, count in zip(splits, videos, strict=True):
        for index in range(count):
            number += 1
            name = NAMES.get(dataset, "{0:.0}{1:011d}").format(split.lower(), number)
            fps = 25.0 if dataset == "thumos14" and index % 2 else 30.0
            duration = float(np.round(random.uniform(30, 50), 2))
            own = labels[index::count]  # every class occurs in every split
            starts = np.sort(random.uniform(0, duration - 6, len(own)))
            database[name] = {
                "subset": split,
                "duration": duration,
                **({"fps": fps} if dataset == "thumos14" else {}),
                "annotations": [
                    {"label": label, "segment": [float(at), float(at) + 4.0], "label_id": labels.index(label)}
                    for label, at in zip(own, starts, strict=True)
                ],
            }
            steps = int((duration * fps - run.features.window) / run.features.stride) + 1
            features[name] = random.standard_normal((steps, run.features.dimension)).astype(np.float16)
    if dataset == "hacs":  # its test split has no annotations and is not used
        database["testing0001"] = {"subset": "testing", "duration": 10.0, "annotations": []}
        features["testing0001"] = np.zeros((5, run.features.dimension), np.float16)
    scores = None
    if run.detection.external_classes:
        tested = [name for name, video in database.items() if video["subset"] == splits[1]]
        rows = random.dirichlet(np.ones(len(labels)), len(tested)).tolist()
        scores = {"results": dict(zip(tested, rows, strict=True)), "class": labels}
    return Published(run, {"version": dataset, "database": database}, scores, features)


def publish(hub: Hub, published: Published, commit: str = COMMIT, count: int = 3) -> dict[str, bytes]:
    """Put a miniature on the server; returns its files."""
    files = published.files(count)
    hub.publish(published.repository, files, commit)
    return files


def tensor_file(value: object) -> bytes:
    """What `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def member(name: str, content: bytes) -> Member:
    """A regular file of an archive."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def archive(members: Iterable[Member]) -> bytes:
    """A .tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as packed:
        for info, content in members:
            packed.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def parts(repository: str, content: bytes, count: int) -> dict[str, bytes]:
    """What `split` makes of an archive: NAME.partaa, NAME.partab, ..., the last one shorter."""
    name, size = repository.split("/")[1], -(-len(content) // count)
    return {f"{name}.parta{'abcdefgh'[i]}": content[i * size : (i + 1) * size] for i in range(count)}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(published: Published, place: Path) -> str:
    with pytest.raises(RdfaError) as caught:
        fetch(published.run, place, "k")
    assert not (place / "manifest-k.json").exists() and not (place / "features.h5").exists()
    assert not list(place.glob(".*"))
    return str(caught.value)


def assert_whole(published: Published, place: Path) -> None:
    """The store holds exactly what was published."""
    store = FeatureStore(place / "features.h5")
    annotated = {name for name, video in published.annotations["database"].items() if video["annotations"]}
    assert set(store.videos) == annotated
    for name in annotated:
        np.testing.assert_array_equal(store.read(name), published.features[name].astype(np.float32))
    store.close()
    assert entries(place.parent) == [place.name], "neither parts nor locks stay"


def downloads(place: Path) -> Path:
    return place.with_name(f"{place.name}.downloads")
