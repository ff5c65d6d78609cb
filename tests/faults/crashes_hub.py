"""Crashes of the one fetch that may take days: a download from the Hub, and the conversion of what it brought.

A miniature of THUMOS-14 comes from a server on this machine. A call is stopped when so many bytes have come, or when so
much of the conversion's time is over; the next call goes on.
"""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.data.hub_server import Hub, serving
from tests.data.hub_sets import CHANNELS, miniature, publish
from tests.faults.campaign import LOST, SURVIVED, WRONG, Outcome, Scene
from tests.faults.crashes_scene import contents, differences
from tests.faults.forked import Ended, Forked, rdfa
from tests.faults.hostile_calls import inside

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
INTERRUPTED = 130
TRIES = 10
"""Moments that are drawn until one comes before the end; only that one counts."""
PACE = 0.01
"""Seconds between two kilobytes: a download that a signal can meet."""
_SETTINGS = (f"features.dimension={CHANNELS}", "source.hub.annotations.sha256=null", "source.hub.attempts=2")
FETCH = ("fetch", "thumos14", *(f"--set={each}" for each in _SETTINGS))


def downloading(scene: Scene) -> Iterator[Outcome]:
    """Stopped when any share of the bytes has come."""
    with _published(scene) as whole:
        for _ in range(scene.count(2, 40)):
            yield _drawn(scene, whole, lambda: (scene.random.random(), 0.0))


def converting(scene: Scene) -> Iterator[Outcome]:
    """Stopped when all bytes have come and any share of the conversion's time is over."""
    with _published(scene) as whole:
        for _ in range(scene.count(2, 40)):
            yield _drawn(scene, whole, lambda: (1.0, scene.random.random() * whole.seconds))


@dataclass(frozen=True)
class Whole:
    """What an undisturbed fetch of the miniature makes, and how it comes to that."""

    hub: Hub
    bytes: int
    """Of all parts together."""
    seconds: float
    """From the last byte to the end."""
    contents: dict[str, str]


@contextmanager
def _published(scene: Scene) -> Iterator[Whole]:
    """A server with the miniature, in a checkout of its own."""
    folder = scene.folder / "checkout"
    folder.mkdir()
    with serving() as hub, inside(folder, HF_ENDPOINT=hub.url):
        published = miniature("thumos14")
        files = publish(hub, published)
        size = sum(len(content) for path, content in files.items() if ".part" in path)
        published.place(scene.folder / "asked")
        begin(scene)
        came = [0.0]
        ended = call(lambda child, there: came.__setitem__(0, came[0] or time.monotonic() * (there >= size)))
        assert ended.status == 0 and came[0], ended.output
        yield Whole(hub, size, time.monotonic() - came[0], contents(folder))


def call(watch: Callable[[Forked, int], object]) -> Ended:
    """Fetch; `watch` sees the child and how many bytes have come."""
    child = Forked(rdfa(*FETCH), Path.cwd())
    return child.wait(watch=lambda: watch(child, _size()))


def begin(scene: Scene) -> None:
    """The folder as a person prepares it: annotations and no features."""
    shutil.rmtree("data", ignore_errors=True)
    shutil.copytree(scene.folder / "asked", Path("data") / "thumos14")


def _size() -> int:
    """Bytes of the parts that have come."""
    try:
        return sum(path.stat().st_size for path in Path("data/thumos14.downloads").glob("*.part*"))
    except FileNotFoundError:  # renamed meanwhile
        return 0


def _drawn(scene: Scene, whole: Whole, draw: Callable[[], tuple[float, float]]) -> Outcome:
    for _ in range(TRIES):
        number = scene.random.choice(SIGNALS)
        share, after = draw()
        whole.hub.pace = PACE if share < 1 else 0.0
        outcome = _stopped(scene, whole, number, share, after)
        if outcome is not None:
            return outcome
    return Outcome(WRONG, f"{TRIES} signals came too late")


def _stopped(scene: Scene, whole: Whole, number: signal.Signals, share: float, after: float) -> Outcome | None:
    """Stop a fetch, call it again and judge both; None: it had ended before."""
    begin(scene)
    reached, struck = [0.0], [False]

    def strike(child: Forked, size: int) -> None:
        reached[0] = reached[0] or time.monotonic() * (size >= share * whole.bytes)
        if reached[0] and not struck[0] and time.monotonic() >= reached[0] + after:
            struck[0] = True
            child.signal(number)

    first = call(strike)
    whole.hub.pace = 0.0
    if not struck[0] or first.status == 0:
        return None
    what = f"{number.name} when {share:.3f} of the bytes had come and {after:.3f} s were over"
    expected = {signal.SIGKILL: -signal.SIGKILL}.get(number, INTERRUPTED)
    said = number == signal.SIGKILL or "interrupted" in first.output
    if first.traced or first.status != expected or not said:
        return Outcome(WRONG, f"{what}: {first.status}, {first.output[-1500:]}")
    if list(Path("data/thumos14").glob("manifest-*.json")) and (other := _fetched_otherwise(whole)):
        return Outcome(WRONG, f"{what}: a manifest beside files that are not whole: {', '.join(other[:8])}")
    second = call(lambda child, size: None)
    if second.status or second.traced:
        return Outcome(LOST, f"{what}: the next call ended with {second.status}\n{second.output[-1500:]}")
    if other := differences(contents(Path.cwd()), whole.contents):
        return Outcome(LOST, f"{what}: the next call ends in other files: {', '.join(other[:8])}")
    return Outcome(SURVIVED)


def _fetched_otherwise(whole: Whole) -> list[str]:
    """Files of the data set that are not those of an undisturbed fetch; what was downloaded for it goes last."""
    return [name for name in differences(contents(Path.cwd()), whole.contents) if ".downloads" not in name]
