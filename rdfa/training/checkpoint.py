"""Weights and training state on disk: safetensors only, written whole or not at all, never unpickled.

Weights go to `checkpoint.safetensors` of a run. The state that a resumed training needs is one file of its own:
tensors under `model.`, `average.` and `optimizer.`, and everything else as JSON in the file's metadata. Random
numbers and data order need no state: they are functions of seed, epoch and step. The metadata also hold a checksum of
everything: a flipped bit is an error, and no other detector.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from rdfa.errors import RdfaError
from rdfa.files import written_whole
from rdfa.training.averaging import AveragedWeights

_ENTRY, _CHECKSUM = "rdfa", "sha256"
"""The file's one entry of metadata, JSON, and what the checksum is called in it."""


@dataclass
class State:
    """All that changes during training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedWeights
    counters: dict[str, Any]
    """Plain numbers and lists: steps done, loss normaliser, history."""
    best: dict[str, Tensor]
    """Averaged weights of the best look at the test split, if there was one."""


def save_weights(path: Path, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write named tensors with string metadata, to which their checksum is added.

    All metadata are one entry: safetensors writes several in an order that differs from call to call.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    entry = json.dumps(metadata | {_CHECKSUM: _digest(contiguous, metadata)}, sort_keys=True)
    with written_whole(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata={_ENTRY: entry})
        except SafetensorError as error:
            raise OSError(None, str(error)) from error


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read named tensors to the CPU.

    Raises:
        RdfaError: no such file, not a whole safetensors file, or one whose content is not what was written.
    """
    try:
        return _read(path)[0]
    except FileNotFoundError as error:
        raise RdfaError(f"{path}: no such checkpoint; train the run first") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise RdfaError(
            f"{path}: not a whole safetensors file ({error}); bring the file back, or remove its folder and train again"
        ) from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata; of older versions' files without the checksum.

    The file is opened once: `safe_open` opens it for each, and would take one's names and another's numbers when it is
    replaced in between.

    Raises:
        ValueError: the checksum is another.
    """
    data = path.read_bytes()
    tensors = load(data)  # which checks the header first
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found = header.get("__metadata__") or {}
    metadata = dict(json.loads(found[_ENTRY])) if _ENTRY in found else found
    checksum = metadata.pop(_CHECKSUM, None)
    if checksum not in (None, _digest(tensors, metadata)):
        raise ValueError("its checksum is not that of its content")
    return tensors, metadata


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """SHA-256 over metadata, names, types, shapes and bytes."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def apply_weights(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Put weights into a model; every name must fit.

    Raises:
        RdfaError: names the first missing, surplus or misshapen tensors.
    """
    expected = model.state_dict()
    missing, surplus = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or surplus:
        raise RdfaError(f"{path}: does not fit the model: missing {missing[:3]}, surplus {surplus[:3]}")
    for name, tensor in expected.items():
        if tensor.shape != weights[name].shape:
            raise RdfaError(f"{path}: {name} has shape {tuple(weights[name].shape)}, the model {tuple(tensor.shape)}")
    model.load_state_dict(weights)


def save_state(path: Path, state: State) -> None:
    """Write everything that `load_state` needs to go on as if never interrupted."""
    tensors = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.average.weights.items()}
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    counters = state.counters | {"average_updates": state.average.updates}
    save_weights(path, tensors, {"counters": json.dumps(counters)})


def load_state(path: Path, state: State) -> bool:
    """Go back to a saved state, if there is one; returns whether there was.

    Raises:
        RdfaError: the file is damaged or belongs to another model; says to delete it.
    """
    if not path.exists():
        return False
    try:
        tensors, metadata = _read(path)
        counters = json.loads(metadata["counters"])
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}, "best": {}}
        for name, value in tensors.items():
            group, rest = name.split(".", 1)
            groups[group][rest] = value
        state.model.load_state_dict(groups["model"])
        _restore_optimizer(state.optimizer, groups["optimizer"])
        for name, average in state.average.weights.items():
            average.copy_(groups["average"][name])
        state.average.updates = counters.pop("average_updates")
        state.best = groups["best"]
        state.counters = counters
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise RdfaError(f"{path}: cannot be resumed from ({error}); delete it to train from the beginning") from error
    return True


def _restore_optimizer(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in moments.items():
        index, moment = name.split(".", 1)
        state.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
