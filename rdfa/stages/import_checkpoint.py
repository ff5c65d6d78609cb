"""`rdfa import-checkpoint`: a checkpoint of the official RDFA-S6 repository as a run of ours.

The official repository (github.com/lsy0882/RDFA-S6 at c5caaea) saves, per epoch, a dictionary with `model`,
`model_ema`, `optimizer`, `scheduler`, `epoch` and `mAP`. The two state dicts become the `plain` and the `averaged`
weights of a run, on which `rdfa detect` and `rdfa evaluate` then work. The file is never unpickled beyond tensors and
plain values.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rdfa.data.annotations import read_annotations
from rdfa.data.folder import ANNOTATIONS
from rdfa.data.tensors import unpickled
from rdfa.errors import RdfaError
from rdfa.files import sha256
from rdfa.identity import RUN_JSON, paths
from rdfa.models.detector import build, count_parameters
from rdfa.models.official import from_official, to_official
from rdfa.params import Composed
from rdfa.stages.written import write_run

_WEIGHTS = {"model": "plain", "model_ema": "averaged"}
_HISTORY_HEADER = "epoch,step,loss,classification,regression,positives,learning_rate\n"


def _numpy_scalar(module: str) -> Callable[..., Any]:
    """NumPy's constructor of its numbers under the name that it has in files of NumPy 1 or 2."""

    def scalar(*arguments: Any) -> Any:
        return np.float64(0).__reduce__()[0](*arguments)  # type: ignore[operator]

    scalar.__module__, scalar.__qualname__ = module, "scalar"
    return scalar


# The official mAP is a NumPy number. NumPy itself refuses to make such numbers of anything but bytes.
_NUMPY_NUMBERS: list[Any] = [np.dtype, *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8"))]
_NUMPY_NUMBERS += [_numpy_scalar(f"numpy.{core}.multiarray") for core in ("core", "_core")]


def import_checkpoint_stage(file: Path, composed: Composed, root: Path) -> Path:
    """Write an official checkpoint as the trained run that `composed` describes; returns the run's folder.

    Raises:
        RdfaError: a run is there already; or the file is damaged, holds more than tensors and plain values, or does not
            fit the run's detector, naming the first parameters that are missing, left over or of another shape.
    """
    run, where = composed.run, paths(composed.run, root)
    if (where.folder / RUN_JSON).exists():
        raise RdfaError(f"{where.folder}: a run is there already; delete the folder, or import under another seed")
    content = read_official(file)
    model = build(run)
    weights = {
        f"{ours}.{name}": value
        for official, ours in _WEIGHTS.items()
        for name, value in _translate(content[official], model.state_dict(), f"{file}: {official}").items()
    }
    source = {
        "file": file.name,
        "sha256": sha256(file),
        "epoch": _number(content, "epoch"),
        "mAP": _number(content, "mAP"),
    }
    ignored = ", ".join(sorted(content.keys() - _WEIGHTS.keys() - {"epoch", "mAP"}))
    log = f"imported {file.name} (SHA-256 {source['sha256']}); left out: {ignored or 'nothing'}\n"
    record = {
        "imported_from": source,
        "data_digest": "unknown: trained elsewhere",
        "parameters": count_parameters(model),
        "epoch": source["epoch"],
        "test_looks": None,
    }
    annotations = where.data / ANNOTATIONS
    classes = read_annotations(annotations, faulty="keep").classes if annotations.is_file() else None
    remark = ". Weights imported, not trained here"
    write_run(composed, where.folder, weights, _HISTORY_HEADER, log, classes, record, remark)
    return where.folder


def read_official(file: Path) -> dict[str, Any]:
    """Read a checkpoint of the official repository to the CPU, unpickling tensors and plain values only.

    Raises:
        RdfaError: no such file, damaged, holding other objects, or without `model` and `model_ema`.
    """
    if not file.is_file():
        raise RdfaError(f"{file}: no such file")
    with torch.serialization.safe_globals(_NUMPY_NUMBERS):
        content = unpickled(file, str(file), "tensors and plain values")
    if not isinstance(content, dict):
        raise RdfaError(
            f"{file}: must hold a dictionary, as the official RDFA-S6 saves it, not {type(content).__name__}"
        )
    for name in _WEIGHTS:
        values = content.get(name)
        if not isinstance(values, Mapping) or not all(isinstance(value, Tensor) for value in values.values()):
            raise RdfaError(f"{file}: has no state dict {name!r}; the official RDFA-S6 saves 'model' and 'model_ema'")
    return content


def _translate(state: Mapping[str, Tensor], ours: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """Our state dict from an official one, whose names and shapes must be exactly those that the detector has."""
    stripped = {name.removeprefix("module."): value for name, value in state.items()}
    expected = to_official(ours)
    missing, surplus = sorted(expected.keys() - stripped.keys()), sorted(stripped.keys() - expected.keys())
    if missing or surplus or len(stripped) < len(state):
        raise RdfaError(
            f"{place}: does not fit the run's detector: missing {_some(missing)}; left over {_some(surplus)}"
        )
    for name, value in stripped.items():
        if value.shape != expected[name].shape:
            shapes = f"{tuple(value.shape)}, the run's detector {tuple(expected[name].shape)}"
            raise RdfaError(f"{place}: {name} has shape {shapes}; choose a RUN of the same sizes (--set KEY=VALUE)")
    # Copies: a file may hold one tensor under two names, which safetensors does not write.
    own = {name: value.to(expected[name].dtype, copy=True) for name, value in stripped.items()}
    translated, _ = from_official(own, ours)
    return translated


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) or "nothing") + more


def _number(content: Mapping[str, Any], name: str) -> float | int | None:
    """A number that JSON can hold, or None."""
    value = content.get(name)
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, int | float) and math.isfinite(value) else None
