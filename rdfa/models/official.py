"""Parameter names of the official RDFA-S6 repository (github.com/lsy0882/RDFA-S6 at c5caaea), to ours and back."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from rdfa.errors import RdfaError

_RULES: tuple[tuple[str, str], ...] = (
    # official name (with numbers as groups)                 our name
    (r"backbone\.embedding_module\.conv_(\d+)\.weight", "backbone.embedding.convs.{0-1}.weight"),
    (r"backbone\.embedding_module\.ln_(\d+)\.(\w+)", "backbone.embedding.norms.{0-1}.{1}"),
    (r"backbone\.stem_module\.blocks\.(\d+)\.ln\.(\w+)", "backbone.stem.{0}.dual.norm.{1}"),
    (r"backbone\.stem_module\.blocks\.(\d+)\.t_mamba\.(.+)", "backbone.stem.{0}.dual.temporal.{1}"),
    (r"backbone\.stem_module\.blocks\.(\d+)\.c_mamba\.(.+)", "backbone.stem.{0}.dual.channel.{1}"),
    (r"backbone\.stem_module\.blocks\.(\d+)\.drop_path\.scale", "backbone.stem.{0}.path.scale"),
    (r"backbone\.branch_module\.blocks\.(\d+)\.ln\.(\w+)", "backbone.branch.{0}.dual.norm.{1}"),
    (r"backbone\.branch_module\.blocks\.(\d+)\.mamba\.(.+)", "backbone.branch.{0}.dual.temporal.{1}"),
    (r"backbone\.branch_module\.blocks\.(\d+)\.drop_path\.scale", "backbone.branch.{0}.path.scale"),
    (r"neck\.fpn_norms\.(\d+)\.(\w+)", "neck.norms.{0}.{1}"),
    (r"cls_head\.head\.(\d+)\.conv\.weight", "class_head.tower.hidden.{0}.weight"),
    (r"cls_head\.norm\.(\d+)\.(\w+)", "class_head.tower.norms.{0}.{1}"),
    (r"cls_head\.cls_head\.conv\.(\w+)", "class_head.tower.output.{0}"),
    (r"reg_head\.head\.(\d+)\.conv\.weight", "offset_head.tower.hidden.{0}.weight"),
    (r"reg_head\.norm\.(\d+)\.(\w+)", "offset_head.tower.norms.{0}.{1}"),
    (r"reg_head\.offset_head\.conv\.(\w+)", "offset_head.tower.output.{0}"),
    (r"reg_head\.scale\.(\d+)\.scale", "offset_head.scales.{0}"),
)
_SCALES = "offset_head.scales"
_INSIDE_BLOCK = ((r"conv1ds\.(\d+)\.weight", "conv_weights.{0}"), (r"conv1ds\.(\d+)\.bias", "conv_biases.{0}"))
_CHANNEL_VECTOR = re.compile(r".*\.drop_path\.scale|neck\.fpn_norms\..*|(cls|reg)_head\.norm\..*")
"""Vectors (C,) that the official code keeps as (1, C, 1)."""
_DEPTHWISE = re.compile(r".*\.conv1ds\.\d+\.weight")
"""Kernels (D, k) that it keeps as (D, 1, k)."""


def our_name(official: str) -> str | None:
    """Our name of an official parameter, or None if the detector has no such parameter."""
    for pattern, template in _RULES:
        if match := re.fullmatch(pattern, official):
            *front, last = match.groups()
            return _fill(template, [*front, _inside_block(last)])
    return None


def from_official(state: Mapping[str, Tensor], names: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Translate an official state dict.

    Args:
        state: the official repository's `model` or `model_ema` entry.
        names: our detector's state dict, for its shapes.

    Returns:
        Our state dict (entries that the official one lacks are absent) and the official names left over.
    """
    ours: dict[str, Tensor] = {}
    scales: dict[int, Tensor] = {}
    surplus = []
    for official, value in state.items():
        name = our_name(official)
        if name is not None and name.startswith("offset_head.scales."):
            scales[int(name.rsplit(".", 1)[1])] = value.reshape(())
        elif name is None or name not in names:
            surplus.append(official)
        else:
            ours[name] = value.reshape(names[name].shape)
    if sorted(scales) == list(range(len(names[_SCALES]))):
        ours[_SCALES] = torch.stack([scales[level] for level in sorted(scales)])
    return ours, surplus


def official_name(ours: str) -> str | None:
    """The official name of one of our parameters, or None if the official detector has no such parameter."""
    for pattern, template in _RULES:
        if (found := _inverted(pattern, template, ours)) is not None:
            return found
    return None


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate our detector's state dict to the official names and shapes; the inverse of `from_official`.

    Raises:
        RdfaError: a parameter that the official detector does not have, as the channel path of a branch.
    """
    official: dict[str, Tensor] = {}
    for ours, value in state.items():
        # One vector here, a parameter per level there.
        parts = {f"{ours}.{level}": part for level, part in enumerate(value)} if ours == _SCALES else {ours: value}
        for part_name, part in parts.items():
            name = official_name(part_name)
            if name is None:
                raise RdfaError(
                    f"{ours}: the official RDFA-S6 has no such parameter; only its own structure is exchanged"
                )
            official[name] = part.reshape(_official_shape(name, part))
    return official


def _official_shape(name: str, value: Tensor) -> tuple[int, ...]:
    shape = tuple(value.shape)
    if _CHANNEL_VECTOR.fullmatch(name):
        return (1, *shape, 1)
    return (shape[0], 1, shape[1]) if _DEPTHWISE.fullmatch(name) else shape


def _inverted(pattern: str, template: str, ours: str) -> str | None:
    """The official name that `_RULES` or `_INSIDE_BLOCK` turn into `ours` by this rule, or None."""
    groups = re.findall(r"\([^)]*\)", pattern)
    fixed = re.split(r"\{\d(?:-1)?\}", template)
    match = re.fullmatch("".join(re.escape(a) + b for a, b in zip(fixed, [*groups, ""], strict=True)), ours)
    if match is None:
        return None
    *front, last = match.groups()
    if "{0-1}" in template:
        *front, last = [str(int(match[1]) + 1), *match.groups()[1:]]
    if groups[-1] == "(.+)":
        inside = (_inverted(*rule, last) for rule in _INSIDE_BLOCK)
        last = "dt_proj.bias" if last == "dt_bias" else next((name for name in inside if name), last)
    values = iter([*front, last])
    return re.sub(r"\([^)]*\)", lambda _: next(values), pattern).replace("\\.", ".")


def _inside_block(name: str) -> str:
    for pattern, template in _INSIDE_BLOCK:
        if match := re.fullmatch(pattern, name):
            return _fill(template, list(match.groups()))
    return "dt_bias" if name == "dt_proj.bias" else name


def _fill(template: str, groups: list[str]) -> str:
    name = template.replace("{0-1}", str(int(groups[0]) - 1)) if "{0-1}" in template else template
    return name.format(*groups)
