"""requirements.lock: exact versions of exactly what rdfa, its tests and its tools need, none from an address."""

import re
import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

from tests.conftest import ROOT

OF_THE_BUILD = ("nvidia-", "triton", "cuda-")
"""What torch's builds for CUDA bring: the lock has the version of torch, not the build."""


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    wrong = [line for line in pins if not re.fullmatch(r"[A-Za-z0-9][\w.-]*==\d[\w.!+]*", line)]
    assert wrong == [], "not NAME==VERSION"
    found = {canonical(line.split("==")[0]): line.split("==")[1] for line in pins}
    assert len(found) == len(pins), "a package occurs twice"
    return found


def wanted() -> list[Requirement]:
    """What the project itself asks for, with the extras that the lock is for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    own = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    own += [each for extra in ("clusters", "postgres", "s3", "test", "dev") for each in extras[extra]]
    return [each for each in map(Requirement, own) if each.name != "rdfa"]


def asked_by(name: str, extras: frozenset[str]) -> list[Requirement]:
    """What an installed package asks for on this machine."""
    found = []
    for text in metadata.requires(name) or ():
        each = Requirement(text)
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            found.append(each)
    return found


def test_every_line_of_the_lock_is_one_exact_version_of_an_index() -> None:
    assert len(locked()) > 100


def test_the_lock_holds_exactly_what_the_project_needs_in_versions_that_fit_each_other() -> None:
    pins = locked()
    pending = [("pyproject.toml", each) for each in wanted()]
    seen: set[tuple[str, frozenset[str]]] = set()
    wrong = []
    while pending:
        by, each = pending.pop()
        name, extras = canonical(each.name), frozenset(each.extras)
        if name.startswith(OF_THE_BUILD):
            continue
        if each.url is not None or name not in pins or not each.specifier.contains(pins[name], prereleases=True):
            wrong.append(f"{by} wants {each}, the lock has {pins.get(name)}")
            continue
        if (name, extras) not in seen:
            seen.add((name, extras))
            try:
                pending += [(name, asked) for asked in asked_by(name, extras)]
            except metadata.PackageNotFoundError:
                pytest.skip(f"{name} is not installed: what it needs is not known")
    assert sorted(set(wrong)) == []
    assert sorted(pins.keys() - {name for name, _ in seen}) == [], "in the lock, but nothing needs it"
