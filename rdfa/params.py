"""Composes `params/` into one validated `Run`, and remembers which file each value came from.

Order, later wins: defaults < model < data set < model for this data set < scale < model for this
scale < data set for this scale < table row < command line.

Any of these files may refine itself for a variant under `variants:`, applied right after the file.
A model may refine itself for a data set under `datasets:` and for a scale under `scales:`, a data
set for a scale under `scales:`; these come after that data set's or scale's own file, being the
more special ones, and may hold `variants:` in turn.

A model or a data set may start from another one, named by `extends:`: it comes right after it everywhere. A model may
have sections to itself (`alone: [model, training]`): what the files of data sets and scales say in these is about the
other models and is passed over; what the model says for a data set or a scale is not. Variants of a model are not
those of the models that extend it.
"""

import copy
import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from rdfa.errors import RdfaError
from rdfa.schema import Run
from rdfa.yaml_text import parse

PARAMS = Path("params")
"""Folder of the parameter files, relative to the working directory: the root of a checkout."""

_KINDS = ("datasets", "models", "scales", "tables")
_NOT_PARAMETERS = ("variants", "scales", "datasets", "extends", "alone")
_IDENTITY = ("dataset", "model_name", "variant", "scale", "seed")


@dataclass(frozen=True, kw_only=True)
class Composed:
    """A validated run and, for each dotted key, the file (or "command line") that set it."""

    run: Run
    origins: Mapping[str, str]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a parameter file by OmegaConf's rules (`1e-4` is a number), without interpolations and tags.

    Raises:
        RdfaError: no such file, not YAML, not a mapping, a tag, or an interpolation `${...}`, which could
            reach the environment and would hide where a value comes from.
    """
    try:
        value = copy.deepcopy(_parsed(path, path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise RdfaError(f"{path}: no such file{_choices(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RdfaError(f"{path}: not a readable YAML file ({error})") from error
    except ValueError as error:
        raise RdfaError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise RdfaError(f"{path}: must be a mapping of parameters, not a {type(value).__name__}")
    return dict(value)


@cache
def _parsed(path: Path, text: str) -> Any:
    """A file's content, parsed once per process: the runs of a table share their files."""
    return parse(text, str(path))


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested parameters put together; later layers win."""
    into: dict[str, Any] = {}
    for values in layers:
        _merge(into, values, {}, "")
    return into


def compose(
    *,
    dataset: str,
    model: str,
    variant: str,
    scale: str,
    seed: int = 0,
    row: Mapping[str, Any] | None = None,
    row_origin: str = "table row",
    overrides: tuple[str, ...] = (),
    folder: Path = PARAMS,
) -> Composed:
    """Compose and validate the parameters of one run.

    Args:
        row: parameters that a table's row sets (nested mapping), with `row_origin` naming the file.
        overrides: `section.key=value` as on the command line, the value read as YAML.

    Raises:
        RdfaError: an unknown file, an unknown key, a wrong type, an impossible value or combination;
            the message names file and key.
    """
    for kind, name in (("datasets", dataset), ("models", model), ("scales", scale)):
        _check_name(kind, name, folder)
    values_set: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def apply(values: Mapping[str, Any], origin: str) -> None:
        _merge(values_set, values, origins, origin)

    apply(read_yaml(folder / "defaults.yaml"), str(folder / "defaults.yaml"))
    for values, path in _layers(dataset, model, variant, scale, folder):
        apply(_plain(values), str(path))
        apply(_refinement(values, "variants", variant, path), str(path))
    apply(row or {}, row_origin)
    for override in overrides:
        changed = parse_override(override)
        if not changed.keys().isdisjoint(_IDENTITY):
            raise RdfaError(f"command line: {override!r}: {', '.join(_IDENTITY)} are set by the run's name")
        apply(changed, "command line")
    identity = {"dataset": dataset, "model_name": model, "variant": variant, "scale": scale, "seed": seed}
    apply(identity, "the run's name")
    return Composed(run=_validated(values_set, origins), origins=origins)


def resolved_yaml(composed: Composed) -> str:
    """The whole run as YAML, each value followed by the file that it came from."""
    return "".join(f"{line}\n" for line in _yaml_lines(as_plain(composed.run), composed.origins))


def as_plain(section: BaseModel) -> dict[str, Any]:
    """A section as nested dictionaries and lists, ready for JSON or YAML."""
    plain: dict[str, Any] = section.model_dump(mode="json")
    return plain


def flatten(section: BaseModel) -> dict[str, Any]:
    """A section as dotted keys and leaf values, lists kept whole."""
    return dict(leaves(as_plain(section)))


def read_run(path: Path) -> Run:
    """Read a run's resolved parameters as `rdfa train` wrote them.

    Raises:
        RdfaError: the file does not hold the parameters of a run of this version.
    """
    return _validated(read_yaml(path), {}, default=str(path))


def json_schema() -> str:
    """The JSON schema of a resolved run, for editors; `workflow/schemas/run.schema.json` holds it."""
    return json.dumps(Run.model_json_schema(), indent=1) + "\n"


def _validated(values: Mapping[str, Any], origins: Mapping[str, str], default: str = "params") -> Run:
    try:
        return Run.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise RdfaError("\n".join(_explain(detail, origins, default) for detail in error.errors()[:5])) from error


def _explain(detail: Any, origins: Mapping[str, str], default: str) -> str:
    """One line for one of pydantic's findings: file, key, what is wrong, what it was."""
    path, siblings = _locate([part for part in detail["loc"] if isinstance(part, str)])
    key = ".".join(path)
    found = [origin for known, origin in origins.items() if known == key or known.startswith(key + ".")]
    origin = found[-1] if found else default
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(path[-1], siblings, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"{origin}: unknown parameter {key!r}{hint}"
    if detail["type"] == "missing":
        return f"{origin}: parameter {key!r} is set by no file"
    message = detail["msg"].removeprefix("Value error, ")
    if not key:  # a combination: the files are those of the parameters that the message names
        named = dict.fromkeys(origin for known, origin in origins.items() if known in message)
        return f"{' and '.join(named) or default}: {message}"
    shown = "" if isinstance(detail["input"], dict) else f" (got {detail['input']!r})"
    return f"{origin}: {key}: {message}{shown}"


def _locate(location: list[str]) -> tuple[list[str], list[str]]:
    """Path of a parameter from pydantic's location, and the parameters there are beside it.

    After a field that holds a section per kind, pydantic puts the kind, which is no part of the path.
    """
    sections: list[Any] = [Run]
    path: list[str] = []
    siblings: list[str] = []
    for part in location:
        of_kind = [section for section in sections if part in _kinds(section)]
        if len(sections) > 1 and of_kind:
            sections = of_kind
        else:
            path.append(part)
            siblings = [name for section in sections for name in section.model_fields]
            sections = [option for section in sections for option in _sections(section, part)]
    return path, siblings


def _sections(section: Any, name: str) -> list[Any]:
    """The sections that a field may hold: none, one, or one per kind."""
    field = section.model_fields.get(name)
    options = getattr(field.annotation, "__args__", (field.annotation,)) if field else ()
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def _kinds(section: Any) -> tuple[str, ...]:
    field = section.model_fields.get("kind") or section.model_fields.get("family")
    return getattr(field.annotation, "__args__", ()) if field else ()


def _merge(into: dict[str, Any], values: Mapping[str, Any], origins: dict[str, str], origin: str, at: str = "") -> None:
    for key, value in values.items():
        dotted = f"{at}{key}"
        if isinstance(value, Mapping) and value:
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], value, origins, origin, f"{dotted}.")
        else:
            into[key] = value
            origins.pop(dotted, None)
            origins[dotted] = origin


Layer = tuple[dict[str, Any], Path]
"""Parameters and the file that they are from."""


def _layers(dataset: str, model: str, variant: str, scale: str, folder: Path) -> Iterator[Layer]:
    """What model, data set and scale say, later wins; variants stand in each layer."""
    models, datasets = _with_bases("models", model, folder), _with_bases("datasets", dataset, folder)
    own, own_path = models[model]
    if variant not in own.get("variants", {}):
        known = ", ".join(own.get("variants", {})) or "none"
        raise RdfaError(f"{own_path}: no variant {variant!r}; it has: {known}")
    alone = tuple(part for values, _ in models.values() for part in values.get("alone", ()))

    def of_model(values: dict[str, Any], path: Path) -> Layer:
        return values if path == own_path else {**values, "variants": {}}, path  # a model's variants are its own

    def of_models(kind: str, name: str) -> Iterator[Layer]:
        yield from (of_model(_refinement(values, kind, name, path), path) for values, path in models.values())

    def of_others(values: dict[str, Any], path: Path) -> Layer:
        kept = {key: value for key, value in values.items() if key not in alone}
        own = _refinement(values, "variants", variant, path)
        return kept | {"variants": {variant: {key: own[key] for key in own.keys() - set(alone)}}}, path

    yield from (of_model(*layer) for layer in models.values())
    yield from (of_others(*layer) for layer in datasets.values())
    for name in datasets:
        yield from of_models("datasets", name)
    scale_path = folder / "scales" / f"{scale}.yaml"
    yield of_others(read_yaml(scale_path), scale_path)
    yield from of_models("scales", scale)
    yield from (of_others(_refinement(values, "scales", scale, path), path) for values, path in datasets.values())
    for name in datasets:
        of_dataset = of_models("datasets", name)
        yield from (of_model(_refinement(values, "scales", scale, path), path) for values, path in of_dataset)


def _with_bases(kind: str, name: str, folder: Path) -> dict[str, Layer]:
    """A model's or data set's file after those that it extends, by name."""
    found: dict[str, Layer] = {}
    following: str | None = name
    while following is not None:
        path = folder / kind / f"{following}.yaml"
        if following in found:
            raise RdfaError(f"{path}: extends itself")
        found[following] = read_yaml(path), path
        base = found[following][0].get("extends")
        if base is not None:
            if not isinstance(base, str):
                raise RdfaError(f"{path}: extends: must be the name of one of the {kind}, not {base!r}")
            _check_name(kind, base, folder)
        following = base
    return dict(reversed(found.items()))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _NOT_PARAMETERS}


def _refinement(values: Mapping[str, Any], kind: str, name: str, path: Path) -> dict[str, Any]:
    refinements = values.get(kind) or {}
    if not isinstance(refinements, dict) or not isinstance(refinements.get(name) or {}, dict):
        raise RdfaError(f"{path}: {kind}: must map names to parameters")
    return refinements.get(name) or {}


def parse_override(text: str) -> dict[str, Any]:
    """`section.key=value` as a nested mapping, the value read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RdfaError(f"command line: {text!r} is not of the form section.key=value")
    try:
        parsed = parse(f"value: {value}")
    except ValueError as error:
        raise RdfaError(f"command line: {key}: {_short(value)}: {error}") from error
    if list(parsed) != ["value"]:
        raise RdfaError(f"command line: {key}: more than one value ({_short(value)})")
    nested: Any = parsed["value"]
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def _check_name(kind: str, name: str, folder: Path) -> None:
    path = folder / kind / f"{name}.yaml"
    if Path(name).name != name or not path.is_file():
        raise RdfaError(f"{folder / kind}: no {kind.removesuffix('s')} {name!r}{_choices(path)}")


def _short(said: object) -> str:
    """For a message of one line."""
    text = repr(said) if isinstance(said, str) else str(said)
    return text if len(text) <= 120 else text[:117] + "..."


def _choices(path: Path) -> str:
    names = sorted(file.stem for file in path.parent.glob("*.yaml")) if path.parent.name in _KINDS else []
    return f"; there is: {', '.join(names)}" if names else ""


def leaves(values: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a nested mapping; lists and empty mappings are values."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def _yaml_lines(values: Mapping[str, Any], origins: Mapping[str, str], at: str = "", indent: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:"
            yield from _yaml_lines(value, origins, f"{at}{key}.", indent + "  ")
        else:
            leaf = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
            line = f"{indent}{key}: {leaf.strip().removesuffix('...').strip()}"
            yield f"{line:<56}  # {origins.get(f'{at}{key}', 'derived')}"
