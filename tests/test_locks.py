"""Locks by files: who writes a table is left alone, and a group can share them."""

import os
from pathlib import Path

import pytest

from rdfa.errors import RdfaError
from rdfa.locks import alone, lock_file
from rdfa.reporting.figure_index import keep_only_current_figures
from rdfa.reporting.grids import keep_only_current


def test_a_table_is_not_set_aside_while_a_process_writes_it(tmp_path: Path) -> None:
    table = tmp_path / "results" / "table1.csv"

    with alone("table1", tmp_path, "table"):
        table.parent.mkdir()
        table.write_text("half of it is there, and not yet what it is made of")
        keep_only_current(table, "key")
        assert table.exists()
    keep_only_current(table, "key")
    assert not table.exists() and table.with_suffix(".stale.csv").exists()


def test_figures_are_not_set_aside_while_a_process_draws_them(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "figures" / "table1"

    with alone("table1", tmp_path, "figures"):
        folder.mkdir(parents=True)
        keep_only_current_figures(folder, "key")
        assert folder.exists()
    keep_only_current_figures(folder, "key")
    assert not folder.exists() and folder.with_name("table1.stale").exists()


def test_a_lock_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        with lock_file(tmp_path / "of a group" / "a.lock") as lock:
            assert Path(lock.lock_file).stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(before)


def test_a_lock_that_cannot_be_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RdfaError, match=r"file/a\.lock: cannot be written"):
        lock_file(tmp_path / "file" / "a.lock")
