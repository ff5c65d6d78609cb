"""Reading the two JSON layouts of the ActivityNet toolkit: what annotations and detections share."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rdfa.errors import RdfaError
from rdfa.schema import invisible


def without_duplicate_keys(path: Path | str) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """An `object_pairs_hook` that refuses a key that occurs twice; by itself the decoder keeps the last, silently."""

    def to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise RdfaError(f"{path}: {twice!r} occurs twice in one object; each video may be listed once")
        return result

    return to_dict


def member(path: Path | str, value: Any, key: str, layout: str) -> dict[str, Any]:
    """The object `value[key]` of a file's top level.

    Raises:
        RdfaError: the file has another layout; the message says which one (`layout`) is needed.
    """
    if not isinstance(value, dict) or not isinstance(value.get(key), dict):
        raise RdfaError(f"{path}: needs an object {key!r} at the top level: {layout}")
    found: dict[str, Any] = value[key]
    return found


def refuse_invisible(path: Path | str, names: Iterable[str]) -> None:
    """Refuse names of videos, subsets or classes that do not fit into one line of a table or a terminal.

    Raises:
        RdfaError: one has a control character or the like; which.
    """
    for name in names:
        found = invisible(name)
        if found is not None:
            raise RdfaError(f"{path}: the name {ascii(name)[:120]} has {found}; names must be one line of visible text")
