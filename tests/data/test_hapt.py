"""The HAPT source: the real recordings where they are at hand, and small made-up archives for all that can go wrong."""

import http.server
import io
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdfa.data.annotations import read_annotations
from rdfa.data.features import FeatureStore
from rdfa.data.sources import archive as archives
from rdfa.data.sources.archive import content_digest
from rdfa.data.sources.hapt import CENTER, CLASSES, SCALE, TEST_SUBJECTS, windows, write_hapt
from rdfa.errors import RdfaError
from rdfa.params import compose
from rdfa.schema import Run

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "hapt" / "HAPT_RawData_text.tar.xz"
LINES = 2


def run_of(*overrides: str) -> Run:
    return compose(
        dataset="hapt", model="rdfa", variant="paper", scale="full", overrides=overrides, folder=ROOT / "params"
    ).run


def made_up(lengths: tuple[int, ...] = (400, 300)) -> dict[str, bytes]:
    """Contents of a small RawData folder: subject 1 (training) and subject 2 (test)."""
    rng, files, rows = np.random.default_rng(0), {}, []
    for subject, length in enumerate(lengths, start=1):
        for kind in ("acc", "gyro"):
            text = "\n".join(" ".join(map(str, row)) for row in rng.standard_normal((length, 3))) + "\n"
            files[f"{kind}_exp{subject:02d}_user{subject:02d}.txt"] = text.encode()
        rows += [f"{subject} {subject} {subject} 1 100", f"{subject} {subject} 7 101 250"]
    return files | {"labels.txt": "\n".join(rows).encode() + b"\n"}


def tar_of(path: Path, files: dict[str, bytes], prefix: str = "RawData/", mode: Any = "w:xz", extra: Any = ()) -> Path:
    with tarfile.open(path, mode) as packed:
        for info in extra:
            packed.addfile(info, io.BytesIO(b"\0" * info.size))
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


def zip_of(path: Path, files: dict[str, bytes], prefix: str = "RawData/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(prefix + name, content)
    return path


def run_for(files: dict[str, bytes], **changes: str) -> Run:
    """A run that accepts an archive of these files."""
    run = run_of()
    assert run.source.archive is not None
    archive = run.source.archive.model_copy(update={"sha256": (content_digest(files),), **changes})
    return run.model_copy(update={"source": run.source.model_copy(update={"archive": archive})})


def refusal(run: Run, folder: Path, archive: Path | None) -> str:
    """The message with which an archive is refused; checks that it is short and that nothing is left."""
    with pytest.raises(RdfaError) as caught:
        write_hapt(run, folder, archive)
    assert len(str(caught.value).splitlines()) <= LINES
    assert not folder.exists() or list(folder.iterdir()) == []
    return str(caught.value)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not REAL.exists():
        pytest.skip(f"{REAL} is absent")
    folder = tmp_path_factory.mktemp("hapt")
    write_hapt(run_of(), folder, REAL)
    return folder


def test_the_real_data_has_the_published_counts(real: Path) -> None:
    annotations = read_annotations(real / "annotations.json")
    assert len(annotations.videos) == 61
    assert sum(len(video.labels) for video in annotations.videos) == 1214
    assert annotations.classes == tuple(sorted(CLASSES)) and len(annotations.classes) == 12
    counts = Counter(label for video in annotations.videos for label in video.labels)
    assert counts["WALKING_DOWNSTAIRS"] == 186 and counts["LIE_TO_STAND"] == 58 and len(counts) == 12


def test_the_real_test_split_is_the_nine_published_subjects(real: Path) -> None:
    annotations = read_annotations(real / "annotations.json")
    tested = {int(video.name[-2:]) for video in annotations.subset("test").videos}
    assert tested == {2, 4, 9, 10, 12, 13, 18, 20, 24} == set(TEST_SUBJECTS)
    trained = {int(video.name[-2:]) for video in annotations.subset("train").videos}
    assert len(trained) == 21 and not tested & trained
    assert len(annotations.subset("test").videos) == 19


def test_the_real_segments_follow_one_another_without_overlap(real: Path) -> None:
    """Sample numbers count from 1 and include the last: one segment then ends exactly where the next starts."""
    touching = 0
    for video in read_annotations(real / "annotations.json").videos:
        assert (video.segments[1:, 0] >= video.segments[:-1, 1]).all()
        touching += int((video.segments[1:, 0] == video.segments[:-1, 1]).sum())
        assert video.segments[-1, 1] <= video.duration and video.fps == 50
    assert touching == 642


def test_the_real_features_pass_the_check_and_are_of_comparable_size(real: Path) -> None:
    run, annotations = run_of(), read_annotations(real / "annotations.json")
    store = FeatureStore(real / "features.h5")
    store.check(run.features, annotations.videos)
    first = store.read("exp01_user01")
    assert first.shape == ((20598 - 50) // 10 + 1, 300)
    np.testing.assert_allclose(first[0, :3] * SCALE[:3] + CENTER[:3], [0.91806, -0.1125, 0.50972], atol=1e-3)
    np.testing.assert_array_equal(first[1, :240], first[0, 60:])
    everything = np.concatenate([store.read(video.name)[::5, :6] for video in annotations.subset("train").videos])
    np.testing.assert_allclose(everything.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(everything.std(0), 1, atol=0.05)


def test_windows_are_the_samples_of_each_second_in_order() -> None:
    signals = np.arange(60.0).reshape(10, 6) * SCALE + CENTER
    made = windows(signals, window=4, stride=3)
    assert made.shape == (3, 24) and made.dtype == np.float16
    np.testing.assert_allclose(made[1], np.arange(18, 42), atol=0.05)


@pytest.mark.parametrize("pack", ["tar.xz", "tar.gz", "tar", "zip", "zip in a folder", "zip in a zip"])
def test_the_same_files_are_accepted_however_they_are_packed(tmp_path: Path, pack: Any) -> None:
    files = made_up()
    path = tmp_path / "archive"
    if pack.startswith("tar"):
        tar_of(path, files, mode=f"w:{pack.partition('.')[2]}")
    elif pack == "zip in a zip":
        inner = zip_of(tmp_path / "inner.zip", files, prefix="HAPT Data Set/RawData/").read_bytes()
        zip_of(path, {"HAPT.zip": inner}, prefix="")
    else:
        zip_of(path, files | {"README.txt": b"?"}, prefix="RawData/" if pack == "zip" else "HAPT Data Set/RawData/")
    write_hapt(run_for(files), tmp_path / "out", path)
    annotations = read_annotations(tmp_path / "out" / "annotations.json")
    assert [(video.name, video.subset) for video in annotations.videos] == [
        ("exp01_user01", "train"),
        ("exp02_user02", "test"),
    ]
    assert annotations.videos[1].labels == ("WALKING_UPSTAIRS", "STAND_TO_SIT")
    np.testing.assert_allclose(annotations.videos[1].segments, [[0, 2], [2, 5]])


def test_the_archive_may_be_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = made_up()
    monkeypatch.setenv("RDFA_HAPT_ARCHIVE", str(tar_of(tmp_path / "a.tar.xz", files)))
    write_hapt(run_for(files), tmp_path / "out", None)
    assert (tmp_path / "out" / "features.h5").is_file()
    assert "Neurocomputing" in capsys.readouterr().err, "the terms of use are shown"


def test_the_same_archive_gives_the_same_bytes(tmp_path: Path) -> None:
    files = made_up()
    path = tar_of(tmp_path / "a.tar.xz", files)
    for name in ("one", "two"):
        write_hapt(run_for(files), tmp_path / name, path)
    for name in ("annotations.json", "features.h5"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_missing_archive_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(run_of(), tmp_path / "out", tmp_path / "none.zip")
    assert "none.zip: no such archive (given as archive)" in message
    monkeypatch.setenv("RDFA_HAPT_ARCHIVE", str(tmp_path / "gone.zip"))
    message = refusal(run_of(), tmp_path / "out", None)
    assert "gone.zip: no such archive (named by the environment variable RDFA_HAPT_ARCHIVE)" in message


@pytest.mark.parametrize("pack", [tar_of, zip_of])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.97])
def test_a_truncated_archive_is_refused(tmp_path: Path, pack: Any, share: float) -> None:
    files = made_up()
    whole = pack(tmp_path / "whole", files).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: int(share * len(whole))])
    assert "truncated or damaged archive" in refusal(run_for(files), tmp_path / "out", tmp_path / "cut")


def test_the_real_archive_truncated_is_refused(tmp_path: Path) -> None:
    if not REAL.exists():
        pytest.skip(f"{REAL} is absent")
    (tmp_path / "cut.tar.xz").write_bytes(REAL.read_bytes()[:1_000_000])
    assert "truncated or damaged archive" in refusal(run_of(), tmp_path / "out", tmp_path / "cut.tar.xz")


def test_an_archive_of_other_content_has_the_wrong_checksum(tmp_path: Path) -> None:
    files = made_up()
    other = files | {"acc_exp01_user01.txt": files["acc_exp01_user01.txt"].replace(b"1", b"2", 1)}
    message = refusal(run_for(files), tmp_path / "out", tar_of(tmp_path / "a.tar.xz", other))
    assert (
        "wrong checksum" in message and content_digest(other)[:16] in message and content_digest(files)[:16] in message
    )
    message = refusal(run_of(), tmp_path / "out", tar_of(tmp_path / "empty.tar.xz", {}))
    assert "wrong checksum" in message and "0 files" in message


@pytest.mark.parametrize("name", ["../RawData/labels.txt", "RawData/../../labels.txt", "/RawData/labels.txt"])
@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_a_member_that_leads_out_of_the_archive_is_refused(tmp_path: Path, pack: Any, name: str) -> None:
    files = made_up()
    path = pack(
        tmp_path / "hostile", {f"RawData/{key}": value for key, value in files.items()} | {name: b"x"}, prefix=""
    )
    assert "leads out of the archive; refused" in refusal(run_for(files), tmp_path / "out", path)
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name != "out") == ["hostile"]


def test_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    files = made_up()
    extra = []
    for kind, name in ((tarfile.SYMTYPE, "labels.txt"), (tarfile.CHRTYPE, "acc_exp09_user09.txt")):
        info = tarfile.TarInfo(f"RawData/{name}")
        info.type, info.linkname = kind, "/etc/passwd"
        extra.append(info)
    write_hapt(run_for(files), tmp_path / "out", tar_of(tmp_path / "a.tar", files, mode="w", extra=extra))
    assert len(FeatureStore(tmp_path / "out" / "features.h5").videos) == 2


def test_a_member_that_unpacks_to_too_much_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MOST_BYTES_EACH", 1 << 16)
    bomb = tarfile.TarInfo("RawData/acc_exp07_user07.txt")
    bomb.size = 1 << 20
    path = tar_of(tmp_path / "bomb.tar.xz", made_up(), extra=[bomb])
    assert "unpacks to more than the data set has" in refusal(run_of(), tmp_path / "out", path)


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = {f"{folder}/RawData/labels.txt": b"1 1 1 1 2\n" for folder in "ab"}
    path = tar_of(tmp_path / "a.tar", twice, prefix="", mode="w")
    assert "two members are called 'labels.txt'" in refusal(run_of(), tmp_path / "out", path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.txt", None, "RawData/labels.txt is missing"),
        ("labels.txt", b"1 1 1 1\n", "not 5 finite numbers"),
        ("labels.txt", b"1 5 1 1 10\n", "no recording exp01_user05"),
        ("labels.txt", b"1 1 13 1 10\n", "no activity 13"),
        ("gyro_exp01_user01.txt", None, "acc_exp01_user01.txt has no gyro_exp01_user01.txt"),
        ("gyro_exp01_user01.txt", b"1 2 3\n", "has 400 samples, gyro_exp01_user01.txt has 1"),
        ("acc_exp01_user01.txt", b"1 2 nan\n", "not 3 finite numbers"),
        ("acc_exp01_user01.txt", b"1 2 x\n", "not a table of numbers"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    files = made_up()
    if content is None:
        del files[name]
    else:
        files[name] = content
    assert message in refusal(run_for(files), tmp_path / "out", tar_of(tmp_path / "a.tar", files, mode="w"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("features.dimension=64", "features.dimension is 64, but these recordings need 300"),
        ("features.window=128", "features.dimension is 300, but these recordings need 768"),
        ("features.fps=30.0", "features.fps is 30, but these recordings need 50"),
        ("num_classes=6", "num_classes is 6, but these recordings need 12"),
        ("test_subset=train", "train_subset and test_subset are both"),
    ],
)
def test_parameters_that_do_not_fit_the_recordings_are_refused(tmp_path: Path, override: str, message: str) -> None:
    assert message in refusal(run_of(override), tmp_path / "out", None)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A local web server over a folder; `broken` files break off after 1,000 bytes."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_: Any) -> None:
            pass

        def copyfile(self, source: Any, outputfile: Any) -> None:
            outputfile.write(source.read(1000 if "broken" in self.path else -1))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


@pytest.fixture
def nothing_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RDFA_HAPT_ARCHIVE", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_local_copy_the_archive_is_downloaded(tmp_path: Path, server: str, nothing_local: None) -> None:
    files = made_up()
    zip_of(tmp_path / "hapt.zip", files)
    write_hapt(run_for(files, url=f"{server}/hapt.zip"), tmp_path / "out", None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["annotations.json", "features.h5"]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("{server}/absent.zip", "not found"),
        ("{server}/broken.zip", "1000"),
        ("http://127.0.0.1:1/hapt.zip", "refused"),
        ("http://no.such.host.invalid/hapt.zip", ""),
        ("nothing.zip", "unknown url type"),
    ],
)
def test_a_failed_download_says_how_to_give_a_local_copy(
    tmp_path: Path, server: str, nothing_local: None, address: str, reason: str
) -> None:
    files = made_up()
    zip_of(tmp_path / "broken.zip", files)
    message = refusal(run_for(files, url=address.format(server=server)), tmp_path / "out", None)
    assert "cannot be downloaded" in message and reason in message.lower()
    assert "give its path in the environment variable RDFA_HAPT_ARCHIVE" in message
