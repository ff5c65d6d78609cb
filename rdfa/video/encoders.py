"""The function that turns a clip into a feature vector: ours, a plug-in's, or anybody's.

An encoder is a function: frames (N, H, W, 3) uint8, red green blue, to a finite vector (C,), always of one length.
"""

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rdfa.errors import RdfaError

Encoder = Callable[[NDArray[np.uint8]], NDArray[np.floating]]
GROUP = "rdfa.encoders"
"""Entry-point group in which another package offers encoders by name."""
OURS = "videomae"


def find_encoder(name: str, weights: Path | None, device: str) -> Encoder:
    """The encoder of a name: `videomae`, an entry point of the group `rdfa.encoders`, or `module:function`.

    Args:
        weights: for `videomae`, the folder of its weights; other encoders bring their own.
        device: of `videomae`; auto, cpu or cuda.

    Raises:
        RdfaError: there is no such encoder, or it cannot be loaded.
    """
    if name == OURS:
        if device == "cuda" and not torch.cuda.is_available():
            raise RdfaError("--device is 'cuda', but torch finds no CUDA device; see `rdfa doctor`")
        from rdfa.video.videomae import VideoMAE

        return VideoMAE(weights, device)
    if weights is not None:
        raise RdfaError(f"--weights is for the encoder {OURS!r}; {name!r} brings its own weights")
    offered = entry_points(group=GROUP)
    try:
        if name in offered.names:
            found: Any = offered[name].load()
        elif ":" in name:
            module, _, function = name.partition(":")
            found = getattr(importlib.import_module(module), function)
        else:
            known = ", ".join([OURS, *sorted(offered.names)])
            raise RdfaError(f"no encoder {name!r}; there is: {known}; or name a function as module:function")
    except (ImportError, AttributeError, ValueError) as error:
        raise RdfaError(f"the encoder {name!r} cannot be loaded ({' '.join(str(error).split())})") from error
    if not callable(found):
        raise RdfaError(f"the encoder {name!r} is not a function of a clip")
    encoder: Encoder = found
    return encoder
