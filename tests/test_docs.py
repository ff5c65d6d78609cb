"""The documents name what there is: links, files, commands with their options, parameters, extras, tables."""

import argparse
import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from rdfa.cli.arguments import parser
from rdfa.identity import parse_run_name
from rdfa.params import compose
from rdfa.reporting.grids import elsewhere, table_names
from rdfa.schema import Run
from tests.conftest import ROOT

DOCUMENTS = sorted(
    [*(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "SECURITY")), *(ROOT / "docs").rglob("*.md")]
)
OF_A_READER = {"mine", "NAME", "TABLE", "FOLDER"}
"""What stands for a name of the reader's own."""
SECTIONS = "|".join(name for name, field in Run.model_fields.items() if field.annotation not in (str, int))


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def code(text: str) -> Iterator[str]:
    """Lines of code blocks, fenced or indented, continued ones joined, and code within sentences."""
    fenced = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks = [*fenced, "\n".join(re.findall(r"^ {4,}(\S.*)$", rest, re.MULTILINE))]
    yield from "\n".join(blocks).replace("\\\n", " ").splitlines()
    yield from (" ".join(inline.split()) for inline in re.findall(r"`([^`]+)`", rest))


def commands(text: str) -> Iterator[list[str]]:
    """The words after `rdfa` of each call of it."""
    for line in code(text):
        call = re.search(r"(?:^|-m )rdfa ((?:[a-z]|--).*)", line)
        if call:
            yield shlex.split(call[1].split(";")[0], comments=True)


def known_options() -> dict[str, set[str]]:
    root = parser()
    (subcommands,) = (action for action in root._actions if isinstance(action, argparse._SubParsersAction))
    return {name: set(each._option_string_actions) for name, each in subcommands.choices.items()}


def parameters(section: type[BaseModel], at: str = "") -> Iterator[str]:
    """Dotted names of all parameters and sections."""
    for name, field in section.model_fields.items():
        yield f"{at}{name}"
        for option in sections(field.annotation):
            yield from parameters(option, f"{at}{name}.")


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from sections(part)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_file_that_is_named_is_there(document: Path) -> None:
    named = re.findall(r"\b(?:params|rdfa|workflow|benchmarks|tests|docs)/[\w./-]*\w", document.read_text())
    absent = [path for path in named if not any((ROOT / path).parent.glob(Path(path).name + "*"))]
    assert [path for path in absent if Path(path).stem not in OF_A_READER] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_exists_with_the_options_that_it_is_given(document: Path) -> None:
    known, wrong = known_options(), []
    for words in commands(document.read_text()):
        given = {word.split("=")[0] for word in words[1:] if word.startswith("--")}
        if words[0] not in known or not given <= known[words[0]]:
            wrong.append(words)
    assert wrong == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_run_that_is_named_composes_with_what_is_set(document: Path) -> None:
    for words in commands(document.read_text()):
        runs = [word for word in words[1:] if re.fullmatch(r"\w+-\w+-\w+-\w+-s\d", word)]
        changed = tuple(after for before, after in pairwise(words) if before == "--set")
        for run in runs:
            if run.split("-")[0] not in OF_A_READER:
                compose(**parse_run_name(run), overrides=changed, folder=ROOT / "params")


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=name_of)
def test_every_parameter_that_is_named_exists(document: Path) -> None:
    text = " ".join(code(document.read_text()))
    named = set(re.findall(rf"(?<![\w./-])(?:{SECTIONS})\.[a-z_]+(?:\.[a-z_]+)*(?![\w(/])", text))
    files = {name for name in named if Path(name).suffix in (".json", ".h5", ".yaml", ".py", ".safetensors")}
    assert named - files - set(parameters(Run)) == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_table_and_extra_that_is_named_exists(document: Path) -> None:
    text = document.read_text()
    tables = set(re.findall(r"\bresults/(\w+)\.(?:csv|md|json)\b", text))
    known = {*table_names(ROOT / "params"), *elsewhere(ROOT / "params")}
    assert tables - known <= OF_A_READER
    extras = set(re.findall(r"rdfa\[(\w+)\]", text))
    assert extras <= tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()


def test_the_readme_leads_to_every_document_and_table() -> None:
    text = (ROOT / "README.md").read_text()
    unnamed = [name_of(path) for path in DOCUMENTS if path.parent == ROOT / "docs" and f"({name_of(path)})" not in text]
    assert unnamed == []
    assert [name for name in table_names(ROOT / "params") if f"`results/{name}.csv`" not in text] == []


def test_every_command_is_documented() -> None:
    named = {words[0] for document in DOCUMENTS for words in commands(document.read_text())}
    assert known_options().keys() - named == set()


def test_the_readme_installs_the_torch_of_the_lock() -> None:
    locked = (ROOT / "requirements.lock").read_text().splitlines()
    assert set(re.findall(r"torch==[\d.]+\d", (ROOT / "README.md").read_text())) <= set(locked)
