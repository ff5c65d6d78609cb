"""rdfa: a reproducibility pipeline for RDFA-S6 (arXiv 2407.13078) and RCL (CVPR 2022).

`rdfa.load(FOLDER)` gives a trained run's detector (docs/using-a-model.md).
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_OFFERED = dict.fromkeys(("load", "Segment", "TrainedDetector"), "rdfa.inference.trained")


def __getattr__(name: str) -> Any:
    """What `rdfa` itself offers is imported when first asked for: `import rdfa` alone loads no torch."""
    if name in _OFFERED:
        return getattr(import_module(_OFFERED[name]), name)
    raise AttributeError(f"module 'rdfa' has no attribute {name!r}")
