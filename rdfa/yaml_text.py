"""YAML as plain values: no tags, no interpolations, nothing that grows when it is read.

Parameters come with runs and checkpoints from elsewhere. What could build objects, reach the environment or fill the
memory is refused before a value is made of it.
"""

import io
from collections.abc import Iterator
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

MOST_CHARACTERS, DEEPEST, MOST_ALIASES = 1 << 20, 32, 100
"""Bounds, some ten times what any file of parameters has."""


def parse(text: str, name: str = "text") -> Any:
    """Plain values of a text by OmegaConf's rules (`1e-4` is a number).

    Raises:
        ValueError: not YAML, a tag, an interpolation `${...}` in any value or key, or larger than parameters are.
    """
    try:
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"longer than {MOST_CHARACTERS} characters")
        _refuse_unfit(text)
        file = io.StringIO(text)
        file.name = name  # for the parser's messages
        value = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        raise ValueError(f"not readable YAML ({' '.join(str(error).split())[:300]})") from error
    for place, word in _words(value):
        if "${" in word:
            raise ValueError(f"{place}: interpolations are not allowed ({word[:100]!r})")
    return value


def _refuse_unfit(text: str) -> None:
    """Refuse, by the parser's events alone, what must not be built."""
    depth = aliases = 0
    anchored: int | None = None  # the depth of the anchored value that is open
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            aliases += 1
            if anchored is not None:
                raise ValueError(f"*{event.anchor} stands within an anchored value")
            if aliases > MOST_ALIASES:
                raise ValueError(f"more than {MOST_ALIASES} aliases")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            anchored = None if anchored == depth else anchored
        elif isinstance(event, yaml.NodeEvent):
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise ValueError(f"tags are not allowed: {tag}")
            if isinstance(event, yaml.CollectionStartEvent):
                anchored = depth if event.anchor is not None and anchored is None else anchored
                depth += 1
                if depth > DEEPEST:
                    raise ValueError(f"nested deeper than {DEEPEST} levels")


def _words(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """All strings, keys among them, with the dotted key that they are at."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _words(key, at or str(key))
            yield from _words(item, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _words(item, at)
