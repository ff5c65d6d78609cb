"""A user's files for tests: small made-up recordings, and the folder in which commands are run on them."""

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from tests.conftest import ROOT

STRIDE, WINDOW, FPS = 5, 10, 25.0


@dataclass
class Recording:
    """A video as its owner has it."""

    name: str
    subset: str
    duration: float
    features: NDArray[Any]
    instances: list[tuple[float, float, str]]


def recordings(kind: Any = np.float32) -> list[Recording]:
    """Six videos with 8 channels, each with the same two instances and a third of one of two classes."""
    random, made = np.random.default_rng(0), []
    for number, steps in enumerate((120, 130, 141, 150, 110, 155)):
        duration = ((steps - 1) * STRIDE + WINDOW) / FPS
        own = [(1.5, 4.25, "a"), (6.1, 9.3, "b"), (12.0, 15.0, "ab"[number % 2])]
        features = random.standard_normal((steps, 8)).astype(kind)
        made.append(Recording(f"v{number}", "test" if number > 3 else "train", duration, features, own))
    return made


def workspace(folder: Path) -> Path:
    """A working directory with the project's parameters, to be changed at will."""
    shutil.copytree(ROOT / "params", folder / "params")
    return folder


def write_labels(path: Path, made: list[Recording], duration: bool = True) -> Path:
    """Annotations as CSV, or as ActivityNet JSON by the path's ending."""
    if path.suffix == ".json":
        database = {
            each.name: {
                "subset": each.subset,
                "duration": each.duration,
                "annotations": [{"segment": [start, end], "label": label} for start, end, label in each.instances],
            }
            for each in made
        }
        path.write_text(json.dumps({"database": database}))
        return path
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "subset", "start", "end", "label", *(["duration"] if duration else [])])
        for each in made:
            for instance in each.instances or [("", "", "")]:
                rows.writerow([each.name, each.subset, *instance, *([each.duration] if duration else [])])
    return path


def write_features(path: Path, made: list[Recording], form: str) -> Path:
    """Features as `npy`, `pt` (folders), `h5` (flat) or `groups` (by subset), with attributes in HDF5."""
    if form in ("npy", "pt"):
        path.mkdir()
        for each in made:
            if form == "npy":
                np.save(path / f"{each.name}.npy", each.features)
            else:
                torch.save(torch.from_numpy(each.features.T.copy()), path / f"{each.name}_feature.pt")
        return path
    with h5py.File(path := path.with_suffix(".h5"), "w") as file:
        file.attrs.update(stride=STRIDE, window=WINDOW, fps=FPS)
        for each in made:
            file[each.name if form == "h5" else f"{each.subset}/{each.name}"] = each.features
    return path


GRID = ("--stride", str(STRIDE), "--window", str(WINDOW), "--fps", str(FPS))
