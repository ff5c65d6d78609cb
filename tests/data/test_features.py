"""The feature store: what is written is read, what is wrong is refused, nothing half-written stays."""

import multiprocessing
import pickle
import random
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from rdfa.data.annotations import Video
from rdfa.data.features import FeatureStore, FeatureWriter
from rdfa.errors import RdfaError
from rdfa.schema import Features

EXPECTED = Features(encoder="test", dimension=8, stride=4, window=16, fps=30.0, keep_every=1)


def attributes(**changes: Any) -> Any:
    return {"fps": 30.0, "stride": 4, "window": 16, "duration": 7.2, "encoder": "test", "source": "0" * 64} | changes


def video(name: str, duration: float = 7.2, fps: float | None = None) -> Video:
    return Video(name, "train", duration, fps, np.zeros((0, 2)), ())


def features_of(seed: int, steps: int = 51, channels: int = 8, kind: Any = np.float16) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal((steps, channels)).astype(kind)


def write_store(path: Path, names: tuple[str, ...] = ("a", "b", "c"), **changes: Any) -> Path:
    with FeatureWriter(path) as writer:
        for seed, name in enumerate(names):
            writer.add(name, "test" if name == "c" else "train", features_of(seed), **attributes(**changes))
    return path


def write_videos(path: Path, *videos: tuple[str, Any]) -> None:
    with FeatureWriter(path) as writer:
        for name, features in videos:
            writer.add(name, "train", features, **attributes())


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(write_store(tmp_path / "features.h5"))


def read_all(path: Path) -> list[Any]:
    store = FeatureStore(path)
    try:
        return [(n, store.split(n), store.attributes(n), store.read(n).tobytes()) for n in store.videos]
    finally:
        store.close()


def test_what_is_written_is_read_back(store: FeatureStore) -> None:
    assert store.videos == ("a", "b", "c")
    assert store.split("a") == "train" and store.split("c") == "test"
    assert store.shape("b") == (51, 8)
    read = store.read("b")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, features_of(1).astype(np.float32))
    assert vars(store.attributes("b")) == attributes()


def test_single_precision_survives(tmp_path: Path) -> None:
    features = features_of(0, kind=np.float32)
    write_videos(tmp_path / "f.h5", ("a", features))
    np.testing.assert_array_equal(FeatureStore(tmp_path / "f.h5").read("a"), features)


def test_a_wide_video_is_stored_in_several_equal_chunks(tmp_path: Path) -> None:
    features = features_of(0, steps=1001, channels=1408)
    write_videos(tmp_path / "f.h5", ("a", features))
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["train/a"].chunks == (334, 1408)
    np.testing.assert_array_equal(FeatureStore(tmp_path / "f.h5").read("a"), features.astype(np.float32))


def test_the_same_features_give_the_same_bytes_at_another_time(tmp_path: Path) -> None:
    first = write_store(tmp_path / "one.h5").read_bytes()
    time.sleep(1.1)  # HDF5 counts time in seconds
    assert write_store(tmp_path / "another.h5").read_bytes() == first


def test_a_store_that_agrees_is_accepted(store: FeatureStore) -> None:
    store.check(EXPECTED, [video("a"), video("b"), video("c", duration=7.9)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dimension": 16}, "channels 8, .* say 16"),
        ({"stride": 8}, "stride in frames 4, .* say 8"),
        ({"window": 32}, "window in frames 16, .* say 32"),
        ({"fps": 25.0}, "fps 30, .* say 25"),
    ],
)
def test_a_store_that_disagrees_with_the_parameters_is_refused_with_both_numbers(
    store: FeatureStore, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RdfaError, match=message):
        store.check(EXPECTED.model_copy(update=changes), [video("a")])


def test_where_the_parameters_leave_fps_open_the_annotations_decide(store: FeatureStore) -> None:
    store.check(EXPECTED.model_copy(update={"fps": None}), [video("a"), video("b", fps=30.0)])
    with pytest.raises(RdfaError, match=r"fps 30, .* say 24"):
        store.check(EXPECTED.model_copy(update={"fps": None}), [video("a", fps=24.0)])


def test_a_store_of_other_videos_of_the_same_names_is_refused(store: FeatureStore) -> None:
    with pytest.raises(RdfaError, match=r"'a' lasts 7.2 s, its annotations say 90 s"):
        store.check(EXPECTED, [video("a", duration=90.0)])


def test_videos_without_features_are_counted_and_five_are_named(store: FeatureStore) -> None:
    with pytest.raises(RdfaError, match=r"1 of 2 annotated videos have no features: x$"):
        store.check(EXPECTED, [video("a"), video("x")])
    with pytest.raises(RdfaError, match=r"7 of 8 annotated videos have no features: x0, x1, x2, x3, x4, \.\.\.$"):
        store.check(EXPECTED, [video("a"), *(video(f"x{i}") for i in range(7))])
    with pytest.raises(RdfaError, match="no features of video 'x'"):
        store.read("x")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_writer_refuses_features_that_are_not_finite_and_leaves_nothing(tmp_path: Path, value: float) -> None:
    features = features_of(0)
    features[17, 3] = value
    message = rf"video 'bad' has the feature {value} at step 17, channel 3 \(1 of 408"
    with pytest.raises(RdfaError, match=message):
        write_videos(tmp_path / "f.h5", ("good", features_of(1)), ("bad", features))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((0, 8), np.float16), "empty"),
        (np.zeros((8, 0), np.float32), "empty"),
        (np.zeros((4, 8), np.float64), r"float64 \(4, 8\), not float16 or float32"),
        (np.zeros(8, np.float32), r"float32 \(8,\), not"),
    ],
)
def test_the_writer_refuses_features_that_are_no_matrix(tmp_path: Path, features: NDArray[Any], message: str) -> None:
    with pytest.raises(RdfaError, match=message):
        write_videos(tmp_path / "f.h5", ("a", features))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "x/y", "", "."])
def test_the_writer_refuses_names_that_cannot_be_told_apart(tmp_path: Path, name: str) -> None:
    with pytest.raises(RdfaError, match=r"given twice|cannot be a name"):
        write_videos(tmp_path / "f.h5", ("a", features_of(0)), (name, features_of(0)))


def test_the_reader_refuses_features_that_are_not_finite_with_their_place(tmp_path: Path) -> None:
    path = write_store(tmp_path / "f.h5")
    with h5py.File(path, "r+") as file:
        file["train/b"][5, 2] = np.nan
    assert FeatureStore(path).read("a").shape == (51, 8)
    with pytest.raises(RdfaError, match=r"f\.h5: video 'b' has the feature nan at step 5, channel 2"):
        FeatureStore(path).read("b")


def test_a_store_that_is_absent_or_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RdfaError, match=r"none\.h5: no such feature store"):
        _ = FeatureStore(tmp_path / "none.h5").videos
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(RdfaError, match=r"text\.h5: not a whole feature store"):
        _ = FeatureStore(tmp_path / "text.h5").videos
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["array"] = np.zeros(3)
        file["train/a"] = np.zeros(3)
    with pytest.raises(RdfaError, match=r"other\.h5.*not a whole feature store"):
        FeatureStore(tmp_path / "other.h5").read("a")


def test_a_store_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = write_store(tmp_path / "f.h5").read_bytes()
    for size in range(0, len(whole), 97):
        (tmp_path / "cut.h5").write_bytes(whole[:size])
        with pytest.raises(RdfaError, match=r"cut\.h5.*not a whole feature store"):
            read_all(tmp_path / "cut.h5")


def test_a_store_with_a_flipped_bit_is_refused_or_reads_the_same(tmp_path: Path) -> None:
    path = write_store(tmp_path / "f.h5")
    whole, expected = path.read_bytes(), read_all(path)
    draw = random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        (tmp_path / "flipped.h5").write_bytes(damaged)
        with suppress(RdfaError):
            assert read_all(tmp_path / "flipped.h5") == expected


def read_in_worker(store: FeatureStore) -> bytes:
    return store.read("b").tobytes()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_read_the_store_that_the_parent_has_open(store: FeatureStore, method: Any) -> None:
    expected = store.read("b").tobytes()
    assert read_in_worker(pickle.loads(pickle.dumps(store))) == expected
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(read_in_worker, [store] * 4) == [expected] * 4
    assert store.read("b").tobytes() == expected


def test_a_forked_worker_that_inherits_an_open_store_opens_its_own(store: FeatureStore) -> None:
    expected, handle = store.read("b").tobytes(), store._file

    def work(answers: Any) -> None:
        answers.put((store.read("b").tobytes() == expected, store._file is not handle))

    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [context.Process(target=work, args=(answers,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [answers.get(timeout=20) for _ in workers] == [(True, True)] * 3
    for worker in workers:
        worker.join()


def run_limited(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process whose files cannot grow beyond 100 kB: what a full disk looks like."""
    script = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n" + textwrap.dedent(code)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("videos", [1, 2, 40])
def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path: Path, videos: int) -> None:
    code = f"""
        import numpy as np
        from rdfa.data.features import FeatureWriter
        from rdfa.errors import RdfaError
        try:
            with FeatureWriter({str(tmp_path / "f.h5")!r}) as writer:
                for video in range({videos}):
                    features = np.ones(({60_000 // videos if videos < 3 else 500}, 64), np.float16)
                    writer.add(str(video), "train", features,
                               fps=30.0, stride=4, window=16, duration=1.0, encoder="e", source="s")
        except RdfaError as error:
            print(error)
    """
    done = run_limited(code)
    assert done.returncode == 0 and done.stderr == "", done.stderr[-2000:]
    assert done.stdout.endswith("f.h5: cannot be written (File too large); nothing was left there\n")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_writer_leaves_the_old_store_alone(tmp_path: Path) -> None:
    before = write_store(tmp_path / "f.h5").read_bytes()
    with pytest.raises(AttributeError):
        write_videos(tmp_path / "f.h5", ("z", features_of(9)), ("none", None))
    assert (tmp_path / "f.h5").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
