"""A store's database says where files go; rdfa follows it no further than the folder beside it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rdfa.errors import RdfaError
from rdfa.tracking import Store


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "checkout").mkdir()
    (tmp_path / "others").mkdir()
    (tmp_path / "run.json").write_text("a result")
    return tmp_path / "checkout"


def begun(root: Path) -> tuple[Store, str]:
    store = Store(root)
    return store, store.start("run", "key", {}, {})


def readdressed(root: Path, table: str, column: str, address: str) -> None:
    with closing(sqlite3.connect(root / "mlflow.db")) as connection, connection:
        connection.execute(f"UPDATE {table} SET {column} = ?", (address,))


def addresses(root: Path) -> list[str]:
    others = root.parent / "others"
    (root / "mlartifacts").mkdir(exist_ok=True)
    (root / "mlartifacts" / "link").symlink_to(others)
    own = (root / "mlartifacts").as_uri()
    return [
        *(others.as_uri(), str(others), f"file:{others}", f"file://localhost{others}", f"{own}-not"),
        *(f"{own}/../../others", f"{own}/%2e%2e/%2e%2e/others", f"{own}/link", f"{own}/link/deeper", own + "/.."),
    ]


def test_an_address_outside_the_store_s_folder_is_refused_and_nothing_is_written_there(root: Path) -> None:
    store, run_id = begun(root)
    for address in addresses(root):
        readdressed(root, "runs", "artifact_uri", address)
        with pytest.raises(RdfaError, match=r"mlflow.db: has files go to .* move it away and run `rdfa import-runs`"):
            store.log_file(run_id, root.parent / "run.json")
        with pytest.raises(RdfaError, match="has files go to"):
            store.start("run", "key", {}, {})  # before a training, not after it
        readdressed(root, "experiments", "artifact_location", address)
        with pytest.raises(RdfaError, match="has files go to"):
            Store(root)
        readdressed(root, "experiments", "artifact_location", (root / "mlartifacts").as_uri())
    assert list((root.parent / "others").iterdir()) == []
    assert sorted(path.name for path in root.parent.iterdir()) == ["checkout", "others", "run.json"]


def test_a_folder_or_a_link_in_the_store_leads_no_file_out(root: Path) -> None:
    store, run_id = begun(root)
    with pytest.raises(RdfaError, match="has files go to"):
        store.log_file(run_id, root.parent / "run.json", "../../../..")
    place = root / "mlartifacts" / run_id / "artifacts"
    place.mkdir(parents=True)
    (root.parent / "others" / "run.json").write_text("precious")
    (place / "run.json").symlink_to(root.parent / "others" / "run.json")
    with pytest.raises(RdfaError, match="has files go to"):
        store.log_file(run_id, root.parent / "run.json")
    assert (root.parent / "others" / "run.json").read_text() == "precious"


def test_a_store_that_was_moved_or_named_or_lies_on_another_disk_is_used(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(root)
    moved = shutil.copytree(root, root.parent / "moved, à côté")
    store, run_id = begun(moved)
    store.log_file(run_id, root.parent / "run.json", "figures")
    (found,) = (moved / "mlartifacts").rglob("figures/run.json")
    assert found.read_text() == "a result"
    (moved / "mlartifacts").rename(root.parent / "disk")
    (moved / "mlartifacts").symlink_to(root.parent / "disk")
    found.unlink()
    Store(moved).log_file(run_id, root.parent / "run.json", "figures")
    assert found.read_text() == "a result"
    readdressed(moved, "runs", "artifact_uri", (root.parent / "others").as_uri())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{moved / 'mlflow.db'}")
    Store(moved).log_file(run_id, root.parent / "run.json")
    assert (root.parent / "others" / "run.json").read_text() == "a result"
