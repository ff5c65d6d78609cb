"""docs/sharing.md: what one clone pushes to a remote, another pulls; bytes are equal and nothing runs again."""

import csv
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from rdfa.files import read_json, sha256
from tests.workflow.conftest import Clone, git_clone
from tests.workflow.ports import free_port
from tests.workflow.s3_server import BUCKET, Bucket, serving

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.xdist_group("clone")]

SAMPLES = ("thumos14-sample", "activitynet-sample")
"""The data sets of the fixture `clone`'s table."""
_NOT_SHARED = (".snakemake_timestamp", ".made.json")


@dataclass(frozen=True)
class Sharing:
    """A clone whose owner has tracked and committed everything, and its remote in a folder."""

    clone: Clone
    remote: Path

    def colleague(self, folder: Path) -> Clone:
        return git_clone(self.clone.root, folder)


@pytest.fixture(scope="module")
def sharing(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Sharing:
    """The clone with table 1 and a data set of its owner's, tracked, committed and pushed."""
    root = tmp_path_factory.mktemp("sharing")
    owner = git_clone(clone.root, root / "owner")
    for folder in ("data", "results"):
        shutil.copytree(clone.root / folder, owner.root / folder)
    make_own_data(owner)
    owner.run("rdfa", "track")
    owner.run("dvc", "repro")
    owner.run("dvc", "remote", "add", "--default", "store", str(root / "store"))
    commit(owner)
    owner.run("dvc", "push")
    return Sharing(owner, root / "store")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as patch, serving(tmp_path_factory.mktemp("s3")) as served:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):  # of whoever runs the tests
            patch.delenv(name, raising=False)
        yield served


def commit(clone: Clone) -> None:
    clone.run("git", "add", "--all")
    clone.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "-m", "shared")


def make_own_data(clone: Clone) -> None:
    """A data set `mine` from files that stay outside Git, described and fetched."""
    (clone.root / "my" / "features").mkdir(parents=True)
    random = np.random.default_rng(0)
    with (clone.root / "my" / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "subset", "start", "end", "label", "duration"])
        for number in range(4):
            rows.writerow([f"v{number}", "test" if number > 2 else "train", 2, 6, "clap", 20])
            np.save(clone.root / "my" / "features" / f"v{number}.npy", random.normal(size=(100, 8)).astype("f4"))
    (clone.root / ".gitignore").open("a").write("/my/\n")
    described = ("--annotations", "my/labels.csv", "--features", "my/features", "--stride", "5", "--window", "5")
    clone.run("rdfa", "new-dataset", "mine", *described, "--fps", "25", "--layout", "TC")
    clone.run("rdfa", "fetch", "mine")


def content(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder, without what stays at home (.dvcignore): marks of calls."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in _NOT_SHARED)
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def outs(clone: Clone) -> dict[str, str]:
    return {out["path"]: out["md5"] for out in yaml.safe_load((clone.root / "data.dvc").read_text())["outs"]}


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def test_tracking_gives_each_fetched_data_set_an_entry_and_leaves_the_others(sharing: Sharing, clone: Clone) -> None:
    before, after = outs(clone), outs(sharing.clone)
    fetched = {f"data/{name}" for name in (*SAMPLES, "mine")}
    assert set(after) == set(before) | {"data/mine"}
    assert {path for path in before if before[path] != after[path]} == {f"data/{name}" for name in SAMPLES}
    assert said(sharing.clone.run("rdfa", "track", "--dry-run")) == "".join(
        f"{path}: tracked\n" for path in sorted(fetched)
    )
    assert "up to date" in sharing.clone.run("dvc", "status", *sorted(fetched)).stdout
    text = (sharing.clone.root / "data.dvc").read_text()
    sharing.clone.run("rdfa", "track", "mine")
    assert (sharing.clone.root / "data.dvc").read_text() == text


def test_one_data_set_is_pulled_alone_and_recognised(sharing: Sharing, tmp_path: Path) -> None:
    colleague = sharing.colleague(tmp_path / "colleague")
    colleague.run("dvc", "pull", "data/thumos14-sample")
    assert [path.name for path in (colleague.root / "data").iterdir()] == ["thumos14-sample"]
    name = "data/thumos14-sample"
    assert content(colleague.root / name) == content(sharing.clone.root / name) != {}
    assert colleague.jobs() == {"fetch": 1, "train": 3, "detect": 3, "evaluate": 3, "table": 1}, "ActivityNet's fetch"
    assert colleague.run("rdfa", "track", "--dry-run").stdout == f"{name}: tracked\n"


def test_a_colleague_pulls_everything_and_reruns_nothing(sharing: Sharing, tmp_path: Path) -> None:
    colleague = sharing.colleague(tmp_path / "colleague")
    wanted = [f"data/{name}" for name in (*SAMPLES, "mine")]
    colleague.run("dvc", "pull", *wanted, "results")
    pulled = {folder: content(colleague.root / folder) for folder in ("data", "results")}
    assert {path.split("/")[0] for path in pulled["data"]} == {*SAMPLES, "mine"}
    for folder in (*wanted, "results"):
        assert content(colleague.root / folder) == content(sharing.clone.root / folder)
    assert "Nothing to be done" in colleague.snakemake("-n")
    assert "didn't change, skipping" in colleague.run("dvc", "repro").stdout
    # The owner's files are not here; the pulled folder is what they were fetched to.
    assert not (colleague.root / "my").exists()
    (manifest,) = colleague.run("rdfa", "fetch", "mine").stdout.split()
    assert Path(manifest).parent == Path("data/mine")
    assert {folder: content(colleague.root / folder) for folder in pulled} == pulled


def test_data_and_results_travel_through_an_s3_compatible_server(
    sharing: Sharing, bucket: Bucket, tmp_path: Path
) -> None:
    owner, colleague = sharing.clone, sharing.colleague(tmp_path / "colleague")
    for each in (owner, colleague):
        add_s3(each, bucket)
    wanted = ("data/thumos14-sample", "data/activitynet-sample", "results")
    owner.run("dvc", "push", "-r", "s3", *wanted, **bucket.environment())
    pushed, all_of_owner = bucket.objects().keys(), {f"store/{name}" for name in content(sharing.remote)}
    assert pushed and pushed - all_of_owner == set() != all_of_owner - pushed, "all but mine"
    colleague.run("dvc", "pull", "-r", "s3", *wanted, **bucket.environment())
    for folder in wanted:
        assert content(colleague.root / folder) == content(owner.root / folder)
    assert not (colleague.root / "data" / "mine").exists()
    assert "Nothing to be done" in colleague.snakemake("-n")
    assert "didn't change, skipping" in colleague.run("dvc", "repro").stdout
    for each in (owner, colleague):
        for name in each.run("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.splitlines():
            assert bucket.secret_key.encode() not in (each.root / name).read_bytes()


@pytest.mark.parametrize("fault", ["wrong credentials", "absent server"])
def test_a_remote_that_does_not_answer_leaves_the_folder_as_it_was(
    sharing: Sharing, bucket: Bucket, tmp_path: Path, fault: str
) -> None:
    colleague = sharing.colleague(tmp_path / "colleague")
    shutil.copytree(sharing.clone.root / "data" / "thumos14-sample", colleague.root / "data" / "thumos14-sample")
    (colleague.root / "data" / "thumos14-sample" / "annotations.json").write_text("older than what is pushed")
    before = content(colleague.root / "data")
    add_s3(colleague, bucket, url=f"http://127.0.0.1:{free_port()}" if fault == "absent server" else bucket.url)
    environment = bucket.environment(secret_key="0" * 40 if fault == "wrong credentials" else None)
    failed = colleague.run("dvc", "pull", "-r", "s3", "data/thumos14-sample", check=False, **environment)
    assert failed.returncode != 0
    assert re.search("Forbidden" if fault == "wrong credentials" else "Could not connect to the endpoint", said(failed))
    assert content(colleague.root / "data") == before


def add_s3(clone: Clone, bucket: Bucket, url: str | None = None) -> None:
    """The documented commands; `--local` keeps them out of what Git sees."""
    clone.run("dvc", "remote", "add", "--local", "--force", "s3", f"s3://{BUCKET}/store")
    clone.run("dvc", "remote", "modify", "--local", "s3", "endpointurl", url or bucket.url)


def test_a_data_set_changed_after_tracking_is_named_and_tracked_anew(sharing: Sharing, tmp_path: Path) -> None:
    clone = sharing.colleague(tmp_path / "clone")
    clone.run("dvc", "pull", "data/mine")
    before = outs(clone)
    (manifest,) = (clone.root / "data" / "mine").glob("manifest-*.json")
    assert read_json(manifest)["dataset"] == "mine"
    manifest.rename(manifest.with_name("manifest-01234567.json"))
    assert clone.run("rdfa", "track", "--dry-run").stdout == "data/mine: modified, as data.dvc has it\n"
    assert outs(clone) == before
    clone.run("rdfa", "track", "mine")
    assert {path for path, md5 in outs(clone).items() if before[path] != md5} == {"data/mine"}
