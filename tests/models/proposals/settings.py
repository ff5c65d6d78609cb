"""Parameters of small and of full-size detectors on a proposal map."""

from typing import Any

from rdfa.schema import ProposalModel

FULL: dict[str, Any] = {
    "family": "bmn",
    "steps": 100,
    "durations": 100,
    "base": {"width": 256, "layers": 2, "kernel": 3, "groups": 4},
    "graph": None,
    "boundaries": {"kind": "convolution", "groups": 4},
    "alignment": {"kind": "boundary_matching", "samples": 32, "points": 3, "extend": 0.5, "width": 128},
    "confidence": {"aligned": 512, "width": 128, "layers": 2, "kernel": 3},
    "refine": None,
    "sampling": {"kind": "grid", "coordinates": 40},
    "score": "boundaries_times_confidence",
    "proposal_loss": {
        "boundary_width": 3,
        "boundary_overlap": 0.5,
        "positive": 0.9,
        "high": 0.7,
        "low": 0.3,
        "boundary_weight": 1,
        "classification_weight": 1,
        "regression_weight": 5,
    },
}
SMALL: dict[str, Any] = {
    "steps": 12,
    "durations": 8,
    "base.width": 8,
    "base.groups": 2,
    "boundaries.groups": 2,
    "alignment.samples": 5,
    "confidence.aligned": 10,
    "confidence.width": 6,
}
GTAD: dict[str, Any] = {
    "family": "gtad",
    "base.layers": 1,
    "graph": {"neighbours": 3, "groups": 32, "group_width": 4},
    "boundaries.kind": "graph",
    "alignment": {"kind": "sgalign", "samples": 32, "context": 4, "context_points": 2, "extend": 0.5},
    "confidence.kernel": 1,
    "score": "confidence",
}
SMALL_GRAPH: dict[str, Any] = {"graph.groups": 2, "graph.group_width": 3}
RCL: dict[str, Any] = {
    "refine": {
        "coordinates": "offset",
        "hidden_layer": 128,
        "instances": {"kind": "scale_invariant", "scales": 40, "spacing": 0.1},
        "iterations": 10,
        "state": 64,
        "context": 32,
        "temporal": 1,
        "supervise": "every",
        "gamma": 0.8,
    },
    "sampling.kind": "scale_invariant",
    "score": "confidence",
}
SMALL_RCL: dict[str, Any] = {
    "refine.hidden_layer": 7,
    "refine.instances": {"kind": "scale_invariant", "scales": 5, "spacing": 0.3},
    "refine.iterations": 2,
    "refine.state": 4,
    "refine.context": 3,
}
GTAD_RCL: dict[str, Any] = {"family": "gtad", "base.layers": 1, "graph": GTAD["graph"], **RCL}
FAMILY: dict[str, dict[str, Any]] = {
    "bmn": {**SMALL, "alignment.width": 4},
    "gtad": {**SMALL, **GTAD, **SMALL_GRAPH, "alignment.samples": 5, "alignment.context": 2, "base.width": 8},
    "bmn with RCL": {**SMALL, "alignment.width": 4, **RCL, **SMALL_RCL},
    "gtad with RCL": {**SMALL, "alignment.width": 4, **GTAD_RCL, **SMALL_GRAPH, **SMALL_RCL},
}
"""Small detectors of every kind."""


def proposal_model(changes: dict[str, Any] | None = None, **more: Any) -> ProposalModel:
    """FULL (BMN at ActivityNet's size) with dotted names changed."""
    raw = nested(FULL)
    for name, value in {**(changes or {}), **more}.items():
        *path, last = name.split(".")
        section = raw
        for part in path:
            section = section[part]
        section[last] = nested(value)
    return ProposalModel.model_validate(raw)


def nested(value: Any) -> Any:
    """A copy, dictionaries within too."""
    return {name: nested(part) for name, part in value.items()} if isinstance(value, dict) else value


def small(family: str, **changes: Any) -> ProposalModel:
    return proposal_model(FAMILY[family], **{name.replace("__", "."): value for name, value in changes.items()})
