"""`rdfa track`: what it refuses, and that `data.dvc` is then what it was."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rdfa.cli import main
from tests.conftest import ROOT, TINY

NAME = "thumos14-sample"
RECORD = """\
# what we share
outs:
- path: data/elsewhere
  hash: md5
  md5: b850dd0841ae7c52c6d9b3c62a4c54f4.dir
  size: 6218695
  nfiles: 3
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a fetched data set, and an entry of one that is not here."""
    (tmp_path / "params").symlink_to(ROOT / "params")
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", NAME, *(f"--set={setting}" for setting in TINY)]) == 0
    Path("data.dvc").write_text(RECORD)
    return tmp_path


@pytest.fixture
def repository(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with DVC at work in it."""
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], check=True)
    shutil.copy(ROOT / ".dvcignore", ".dvcignore")  # what a fetch notes for itself is not shared
    return checkout


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    capfd.readouterr()
    assert main(["track", *arguments]) == 2
    return capfd.readouterr().err


def test_an_entry_is_added_and_everything_else_stays(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["track", "--dry-run"]) == 0
    assert f"data/{NAME}: not in data.dvc\n" in capfd.readouterr().out
    assert Path("data.dvc").read_text() == RECORD, "a dry run writes nothing"
    assert main(["track"]) == 0
    text = Path("data.dvc").read_text()
    assert text.startswith(RECORD)
    _, added = yaml.safe_load(text)["outs"]
    assert added["path"] == f"data/{NAME}" and added["nfiles"] == 3
    assert list(Path(".dvc/cache").rglob(added["md5"][2:])), "the bytes are ready to be pushed"
    assert main(["track", "--dry-run"]) == 0
    assert capfd.readouterr().out.endswith(f"data/{NAME}: tracked\n")


@pytest.mark.parametrize("name", ["thumos14", "elsewhere", "..", f"../data/{NAME}", ""])
def test_what_is_not_fetched_is_refused_with_what_is(
    checkout: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    message = refused(capfd, NAME, name)
    assert f"is not a fetched data set (there are: {NAME})" in message
    assert Path("data.dvc").read_text() == RECORD


def test_a_link_to_another_disk_is_refused_with_the_other_way(
    checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (checkout / "data" / NAME).rename(checkout / "disk")
    (checkout / "data" / NAME).symlink_to(checkout / "disk")
    assert "docs/sharing.md" in refused(capfd, NAME)
    assert Path("data.dvc").read_text() == RECORD


@pytest.mark.parametrize("text", ["outs: [", "", "outs:\n- md5: 0\n", "outs: 3\n", "outs:\n- 3\n"])
def test_a_damaged_record_is_named_and_left(checkout: Path, capfd: pytest.CaptureFixture[str], text: str) -> None:
    Path("data.dvc").write_text(text)
    assert "git checkout data.dvc" in refused(capfd)
    assert Path("data.dvc").read_text() == text


def test_what_dvc_refuses_is_said_by_dvc_and_changes_nothing(
    repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path(".dvcignore").write_text("data/\n")
    message = refused(capfd)
    assert "ERROR" in message and "`dvc add` failed" in message
    assert Path("data.dvc").read_text() == RECORD
    Path("data.dvc").unlink()
    refused(capfd)
    assert not Path("data.dvc").exists()
