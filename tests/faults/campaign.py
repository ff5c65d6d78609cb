"""What a campaign of faults is made of: kinds of faults, what became of each one injected, and the table of them.

A module of this package lists its `KINDS`. A kind is a function that injects faults one after the other, all drawn
from the random numbers of its scene, and yields for each what became of it. A fault is survived when the next call,
without cleaning by hand, ends in the right result, or when the message names what is wrong and what to do.
"""

import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.conftest import ROOT

SURVIVED, LOST, WRONG, HUNG = "survived", "lost", "wrong", "hung"
VERDICTS = (SURVIVED, LOST, WRONG, HUNG)


class NotHere(Exception):  # noqa: N818 -- a fact about the machine, no error
    """A kind of fault that this machine cannot inject; the message says why (no root, no such program)."""


class Hung(BaseException):
    """A fault after which nothing came within the kind's limit. No Exception: what is under test must not catch it."""


@dataclass(frozen=True)
class Outcome:
    """What became of one injected fault."""

    verdict: str
    what: str = ""
    """The fault, so that a person can inject it again, and what happened; needed unless survived."""

    def __post_init__(self) -> None:
        assert self.verdict in VERDICTS, self.verdict
        assert self.verdict == SURVIVED or self.what, "say what happened"


@dataclass(frozen=True)
class Scene:
    """Where and how a kind injects its faults."""

    folder: Path
    """Empty, of this kind alone, removed afterwards."""
    random: random.Random
    """Every random choice comes from here: the same seed injects the same faults."""
    full: bool
    """The whole campaign, or the short form of CI."""

    def count(self, short: int, full: int) -> int:
        """How many faults to inject."""
        return full if self.full else short

    def shared(self) -> Path:
        """The folder of reference material beside the project."""
        folder = ROOT.parent / "shared"
        if not folder.is_dir():
            raise NotHere("../shared is absent")
        return folder


@dataclass(frozen=True)
class Kind:
    """A kind of fault: a row of the table."""

    name: str
    inject: Callable[[Scene], Iterator[Outcome]]
    limit: float = 60.0
    """Seconds that one fault may take, with all that comes after it, before it counts as hung."""


@dataclass
class Row:
    """A kind's faults, counted."""

    group: str
    name: str
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    missing: str = ""
    """Why nothing was injected here."""

    @property
    def injected(self) -> int:
        return self.counts.total()

    @property
    def passed(self) -> bool:
        return not self.failures

    def take(self, outcome: Outcome) -> None:
        self.counts[outcome.verdict] += 1
        if outcome.verdict != SURVIVED:
            self.failures.append(f"{self.group}, {self.name}, {outcome.verdict}: {outcome.what}")


def run_kind(group: str, kind: Kind, seed: int, full: bool) -> Row:
    """Inject all faults of a kind and count what became of them."""
    row, start = Row(group, kind.name), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        scene = Scene(Path(folder), random.Random(f"{seed} {group} {kind.name}"), full)
        faults = kind.inject(scene)
        try:
            while True:
                with _limit(kind.limit):
                    outcome = next(faults)
                row.take(outcome)
        except StopIteration:
            if not row.injected:
                row.take(Outcome(WRONG, "not one fault was injected"))
        except NotHere as error:
            row.missing = str(error)
        except Hung:
            row.take(Outcome(HUNG, f"fault {row.injected + 1}: nothing after {kind.limit:.0f} seconds"))
        except Exception:  # of what is under test: a defect, whatever it is
            row.take(Outcome(WRONG, f"fault {row.injected + 1}:\n{traceback.format_exc()}"))
    row.seconds = time.monotonic() - start
    return row


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


HEAD = ("group", "kind", "injected", *VERDICTS, "seconds", "at")


def line(row: Row, revision: str) -> str:
    """A kind's line of the table; `revision` of the code that it ran at."""
    counts = [f"not here: {row.missing}", *[""] * len(VERDICTS)] if row.missing else _numbers(row.counts)
    return _line([row.group, row.name, *counts, f"{row.seconds:.0f}", revision])


def table(lines: list[str]) -> str:
    """A table of Markdown of the lines, with its sums."""
    whole: Counter[str] = Counter()
    for cells in map(cells_of, lines):
        whole.update({verdict: int(cells[3 + n].replace(",", "") or 0) for n, verdict in enumerate(VERDICTS)})
    head = [_line(HEAD), _line(["---", "---", *["---:"] * 6, "---"])]
    return "\n".join([*head, *lines, _line(["**all**", "", *_numbers(whole), "", ""])]) + "\n"


def cells_of(line: str) -> list[str]:
    """The cells of a line of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def _numbers(counts: Counter[str]) -> list[str]:
    return [f"{number:,}" for number in (counts.total(), *(counts[verdict] for verdict in VERDICTS))]


def _line(cells: "tuple[str, ...] | list[str]") -> str:
    return f"| {' | '.join(cells)} |"
