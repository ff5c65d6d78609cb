"""What can go wrong between the Hub and the feature store: the message, what is left, how the next call goes on."""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdfa.data.fetch import fetch
from rdfa.data.sources import hub_features
from rdfa.data.sources.hub import Downloads, Listing
from rdfa.errors import RdfaError
from tests.data.hub_server import Hub
from tests.data.hub_sets import (
    Published,
    assert_whole,
    downloads,
    entries,
    miniature,
    publish,
    refusal,
)


def impatient(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """HF_HUB_DOWNLOAD_TIMEOUT, which huggingface_hub reads when it is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", seconds)


class Forked:
    """The fetch in a child of this process, to be killed or limited; a fork, because the imports take seconds."""

    def __init__(self, place: Path, before: Callable[[], object] = lambda: None) -> None:
        self._output = place.parents[1] / "output"
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                with self._output.open("w", buffering=1) as sys.stdout:
                    sys.stderr = sys.stdout
                    before()
                    fetch(miniature("thumos14").run, place, "k")
                    status = 0
            except RdfaError as error:
                self._output.open("a").write(f"refused: {error}")
            finally:
                os._exit(status)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> tuple[int, str]:
        """Exit status (negative: the signal) and what was printed."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), self._output.read_text()


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: Hub, published: Published, place: Path) -> None:
    hub.break_after = [3000, 2000]
    fetch(published.run, place, "k")
    assert_whole(published, place)
    assert [request.start for request in hub.contents()[:3]] == [0, 3000, 5000]
    assert sum(request.sent for request in hub.contents()) == sum(
        len(content) for path, content in published.files().items() if ".part" in path
    )


def test_a_server_that_ignores_ranges_is_survived(hub: Hub, published: Published, place: Path) -> None:
    hub.break_after, hub.ignores_ranges = [3000], True
    fetch(published.run, place, "k")
    assert_whole(published, place)


def test_killed_in_mid_download_the_next_call_fetches_only_what_is_missing(
    hub: Hub, published: Published, place: Path
) -> None:
    sizes = {path: len(content) for path, content in published.files().items() if ".part" in path}
    first, second, third = sorted(sizes)
    hub.pace = 0.01
    child = Forked(place)
    unfinished = downloads(place) / f"{second}.part"
    while not (unfinished.exists() and unfinished.stat().st_size > 4000) and not (place / "features.h5").exists():
        time.sleep(0.005)
    child.kill()
    assert child.wait()[0] == -9
    there = unfinished.stat().st_size
    assert 4000 < there < sizes[second]
    assert entries(downloads(place)) == sorted([first, f"{second}.part", "listing.json"])
    assert entries(place) == ["annotations.json"]
    hub.pace = 0
    hub.log.clear()
    fetch(published.run, place, "k")
    assert_whole(published, place)
    asked = [(Path(request.path).name, request.start, request.sent) for request in hub.contents()]
    assert asked == [(second, there, sizes[second] - there), (third, 0, sizes[third])]


def test_killed_in_mid_conversion_the_next_call_converts_without_the_network(
    hub: Hub, published: Published, place: Path
) -> None:
    left, read = [4], hub_features.read_tensor

    def dying(*arguments: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(*arguments)

    assert Forked(place, lambda: setattr(hub_features, "read_tensor", dying)).wait()[0] == -9
    assert len(entries(downloads(place))) == 4, "three whole parts and the list"
    (half,) = (name for name in entries(place) if name != "annotations.json")
    assert half.startswith(".features.h5.") and half.endswith(".part")
    hub.log.clear()
    fetch(published.run, place, "k")
    assert hub.log == []
    assert_whole(published, place)
    assert entries(place) == ["annotations.json", "features.h5", "manifest-k.json"]


def test_stopped_before_its_downloads_were_removed_the_next_call_removes_them(
    hub: Hub, published: Published, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Downloads, "remove", lambda self: None)
        manifest = fetch(published.run, place, "k")
    assert len(entries(downloads(place))) > 1
    others = json.loads((downloads(place) / "listing.json").read_text()) | {"commit": "of another revision"}
    record = (downloads(place) / "listing.json").read_text()
    (downloads(place) / "listing.json").write_text(json.dumps(others))
    assert fetch(published.run, place, "k") == manifest
    assert downloads(place).exists(), "these are still coming"
    (downloads(place) / "listing.json").write_text(record)
    assert fetch(published.run, place, "k") == manifest
    assert entries(place.parent) == [place.name]
    assert_whole(published, place)


def test_a_part_that_comes_out_wrong_is_removed_and_only_that_one_is_fetched_again(
    hub: Hub, published: Published, place: Path
) -> None:
    first, second, third = sorted(path for path in published.files() if ".part" in path)
    hub.corrupt = {second}
    message = refusal(published, place)
    assert f"{second}: what came has the checksum sha256:" in message and "it was removed" in message
    assert entries(downloads(place)) == sorted([first, "listing.json"])
    hub.corrupt = set()
    hub.log.clear()
    fetch(published.run, place, "k")
    assert [Path(request.path).name for request in hub.contents()] == [second, third]
    assert_whole(published, place)


@pytest.mark.parametrize("at", [100, -3])
def test_a_part_that_the_disk_has_changed_is_noticed_removed_and_fetched_again(
    hub: Hub, published: Published, place: Path, at: int
) -> None:
    complete = Downloads.complete

    def harmed(self: Downloads, listing: Listing) -> None:
        complete(self, listing)
        path = self.path(listing.parts[1])
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)

    status, output = Forked(place, lambda: setattr(Downloads, "complete", harmed)).wait()
    second = sorted(path for path in published.files() if ".part" in path)[1]
    assert status == 1 and f"{second}: has changed since it was downloaded (wrong checksum); it was removed" in output
    assert entries(place) == ["annotations.json"] and len(entries(downloads(place))) == 3
    hub.log.clear()
    fetch(published.run, place, "k")
    assert [Path(request.path).name for request in hub.contents()] == [second]
    assert_whole(published, place)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "RepoNotFound", "there is no such data set, or it is private"),
        (401, "RepoNotFound", "there is no such data set, or it is private"),
        (403, "GatedRepo", "is gated: accept its terms there with your account, then log in here (`hf auth login`"),
        (404, "RevisionNotFound", "correct source.hub.revision"),
        (503, "", "refused by the server (HTTP 503); try again later"),
    ],
)
def test_a_repository_that_is_refused_says_what_to_do(
    hub: Hub, published: Published, place: Path, status: int, code: str, said: str
) -> None:
    hub.refused = {published.repository: (status, code)}
    message = refusal(published, place)
    assert said in message and f"{hub.url}/datasets/{published.repository}" in message
    assert not downloads(place).exists()
    hub.refused = {}
    fetch(published.run, place, "k")
    assert_whole(published, place)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_part_that_is_refused_is_named(hub: Hub, published: Published, place: Path, status: int) -> None:
    third = sorted(path for path in published.files() if ".part" in path)[2]
    hub.refused = {f"{published.repository}/{third}": (status, "")}
    message = refusal(published, place)
    assert f"/{third}: refused by the server (HTTP {status}" in message
    hub.refused = {}
    hub.log.clear()
    fetch(published.run, place, "k")
    assert [Path(request.path).name for request in hub.contents()] == [third]
    assert_whole(published, place)


def test_a_repository_without_the_parts_says_what_it_holds(hub: Hub, published: Published, place: Path) -> None:
    hub.publish(published.repository, {"README.md": b"", "all.zip": b"x"})
    message = refusal(published, place)
    assert (
        "no file is called thumos14_internvideo2_6b_w16_s4.part* (source.hub.archives); it holds README.md" in message
    )


def test_passing_faults_of_the_server_pass(hub: Hub, published: Published, place: Path) -> None:
    hub.failing = [503]
    hub.break_after = [2000]
    fetch(published.run, place, "k")
    assert_whole(published, place)


def test_a_slow_server_is_asked_again_and_then_given_up(
    hub: Hub, published: Published, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch, 0.2)
    hub.stall = [0.6, 0.6]
    message = refusal(published, place)
    assert "cannot be downloaded (timed out; 2 tries in a row); the same command goes on from byte 0" in message
    hub.stall = [0.6]
    fetch(published.run, place, "k")
    assert_whole(published, place)


def test_without_the_internet_the_message_says_so(
    hub: Hub, published: Published, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    message = refusal(published, place)
    assert "http://127.0.0.1:9/datasets/" in message and "cannot be reached" in message
    assert "fetch on another machine and copy the data set's folder" in message


@pytest.mark.parametrize(
    ("limit", "where"), [(4_000, "thumos14_internvideo2_6b_w16_s4.partaa.part"), (20_000, "features.h5")]
)
def test_a_full_disk_keeps_what_has_come(hub: Hub, published: Published, place: Path, limit: int, where: str) -> None:
    """Files that cannot grow are what a full disk looks like: 4 kB stops the first part, 20 kB the store."""
    status, output = Forked(place, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))).wait()
    message = output[output.index("refused: ") :]
    assert status == 1 and "cannot be written (File too large)" in message and where in message
    assert "Traceback" not in output
    assert entries(place) == ["annotations.json"]
    hub.log.clear()
    fetch(published.run, place, "k")
    assert [request.start for request in hub.contents()][:1] == ([4000] if where.endswith(".part") else [])
    assert_whole(published, place)


def test_a_disk_that_will_not_suffice_is_refused_before_anything_is_downloaded(hub: Hub, place: Path) -> None:
    greedy = miniature("thumos14", "source.hub.store_per_download=1e12")
    publish(hub, greedy)
    greedy.place(place)
    message = refusal(greedy, place)
    assert "free, but" in message and "(nothing was begun); make room, or let" in message
    assert hub.contents() == [] and not downloads(place).exists()
