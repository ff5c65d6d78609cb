"""A Hub on this machine, and a place for a data set."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.hub_server import Hub, serving
from tests.data.hub_sets import Published, miniature, publish


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data" / "set"


@pytest.fixture
def published(hub: Hub, place: Path) -> Published:
    """THUMOS-14 in small, on the server, its annotations in place."""
    made = miniature("thumos14")
    publish(hub, made)
    made.place(place)
    return made
