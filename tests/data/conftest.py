"""A Hub on this machine, and a place for a data set."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.hub_server import Hub, serving


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data" / "set"
