"""Weights on disk."""

from pathlib import Path

import torch

from rdfa.training.checkpoint import load_weights, save_weights


def test_the_same_weights_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    weights = {f"layer.{number}": torch.full((2, 3), float(number)) for number in range(5)}
    contents = set()
    for number in range(8):  # metadata of two entries have one of two orders
        path = tmp_path / f"{number}.safetensors"
        save_weights(path, weights, {"run": "a", "another": "b"})
        contents.add(path.read_bytes())
        assert all(torch.equal(load_weights(path)[name], value) for name, value in weights.items())
    assert len(contents) == 1
