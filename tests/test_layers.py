"""The architecture: a file imports only from its own layer or lower ones, and stays small."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

LAYERS = (
    {
        "rdfa",
        "errors",
        "files",
        "schema",
        "params",
        "provenance",
        "identity",
        "interruptions",
        "locks",
        "records",
        "snakemake_lock",
        "yaml_text",
    },
    {"ops"},
    {"data", "models", "video"},
    {"training", "evaluation"},
    {"inference", "reporting", "tracking", "served"},
    {"doctor", "stages"},
    {"cli", "__main__"},
)
MODULES = sorted((ROOT / "rdfa").rglob("*.py"))


def layer(module: str) -> int:
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else parts[0]
    for number, members in enumerate(LAYERS):
        if name in members:
            return number
    raise AssertionError(f"{module} belongs to no layer: add it to LAYERS")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "rdfa":
                found |= {f"rdfa.{alias.name}" for alias in node.names if (ROOT / "rdfa" / f"{alias.name}.py").exists()}
    return {name for name in found if name.split(".")[0] == "rdfa"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_its_own_layer_or_lower_ones(path: Path) -> None:
    own = layer(name_of(path))
    higher = sorted(name for name in imported(path) if layer(name) > own)
    assert higher == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_is_inside_and_stays_below_four_hundred_lines(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
    assert len(text.splitlines()) <= 400
