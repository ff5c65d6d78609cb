"""Crashes: processes that are killed, stopped and run out of memory, each followed by the same call once more.

What must hold after each: files that are there are whole; a process that was asked to stop says so and leaves no
traceback; the next call needs no cleaning and ends in the same files, byte by byte, and the same runs in MLflow as one
that nothing disturbed; nothing of the disturbed one is left beside them, and no run is called running for ever.
"""

import signal
from collections.abc import Callable, Iterator

from tests.faults.campaign import LOST, SURVIVED, WRONG, Kind, Outcome, Scene
from tests.faults.crashes_fork import Blow, Met, call
from tests.faults.crashes_hub import converting, downloading
from tests.faults.crashes_scene import Stage, contents, differences, running, stage, tracked
from tests.faults.crashes_workflow import snakemake_killed

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
INTERRUPTED = 130
TRIES = 10
"""Moments that are drawn until one comes before the end; only that one counts."""
MEMORY_LEFT = (1 << 20, 200 << 20)
"""Bytes that a process may still take, from too little for anything to enough for most."""

Draw = Callable[[Scene, Stage], Blow]


def during(draw: Draw, short: int, full: int, *names: str) -> Callable[[Scene], Iterator[Outcome]]:
    """A kind that disturbs each of the stages in turn."""

    def inject(scene: Scene) -> Iterator[Outcome]:
        for number in range(scene.count(short, full)):
            of = stage(names[number % len(names)])
            for _ in range(TRIES):
                outcome = disturbed(of, draw(scene, of))
                if outcome is not None:
                    break
            yield outcome or Outcome(WRONG, f"{of.name}: {TRIES} signals came too late")

    return inject


def at_an_event(among: str = "") -> Draw:
    """Before any of the stage's events that `among` finds, every third time after any share of its time instead."""

    def draw(scene: Scene, of: Stage) -> Blow:
        number = scene.random.choice(SIGNALS)
        if scene.random.random() < 1 / 3 and not among:
            return Blow(number, seconds=scene.random.uniform(0, 0.9 * of.whole.seconds))
        return Blow(number, event=scene.random.randint(1, of.count(among)), among=among)

    return draw


def at_a_size(scene: Scene, of: Stage) -> Blow:
    """As the kernel kills what takes too much memory: when it has taken a share of what it will."""
    low, high = of.smallest, of.whole.pages
    return Blow(signal.SIGKILL, memory=low + int(scene.random.random() * 0.9 * (high - low)))


def disturbed(of: Stage, blow: Blow) -> Outcome | None:
    """Disturb a stage, call it again, and judge both; None where the signal met it after its end or before `main`."""
    of.begin()
    before = contents(of.work)
    first = call(of.work, of.commands, blow)
    early = not first.events and first.status != INTERRUPTED and blow.signal != signal.SIGKILL
    if early or not first.struck:
        return None
    wrong = _wrong_end(first, blow.signal)
    if not wrong and blow.signal != signal.SIGKILL and (left := running(of.work)):
        wrong = f"it was asked to stop, and MLflow calls {', '.join(left)} running"
    return judged(of, str(blow), before, first, wrong)


def judged(of: Stage, fault: str, before: dict[str, str], first: Met, wrong: str) -> Outcome:
    """What became of a stage that a fault met: `first` is how it ended, `wrong` what is wrong with that."""
    name = f"{of.name}, {fault} ({len(first.events)} events, the last: {first.events[-1] if first.events else None})"
    wrong = wrong or _not_whole(of, before)
    if wrong:
        return Outcome(WRONG, f"{name}: {wrong}")
    second = call(of.work, of.commands)
    if second.status or second.traced:
        return Outcome(LOST, f"{name}: the next call ended with {second.status}\n{second.output[-1500:]}")
    if other := differences(contents(of.work), contents(of.after)):
        return Outcome(LOST, f"{name}: the next call ends in other files: {', '.join(other[:8])}")
    if left := running(of.work):
        return Outcome(LOST, f"{name}: after the next call MLflow calls {', '.join(left)} running")
    if (found := tracked(of.work)) != (expected := tracked(of.after)):
        return Outcome(LOST, f"{name}: after the next call MLflow's store differs: {_first_other(found, expected)}")
    return Outcome(SURVIVED)


def _wrong_end(first: Met, number: signal.Signals) -> str:
    """What is wrong with how a disturbed process ended; a signal may have come too late."""
    if first.traced:
        return f"a traceback\n{first.output[-1500:]}"
    if number == signal.SIGKILL:
        return "" if first.status in (-signal.SIGKILL, 0) else f"it ended with {first.status}\n{first.output[-500:]}"
    if first.status not in (INTERRUPTED, 0):
        return f"it ended with {first.status}\n{first.output[-500:]}"
    return "" if first.status == 0 or "interrupted" in first.output else f"it said only {first.output[-500:]!r}"


def _not_whole(of: Stage, before: dict[str, str]) -> str:
    """Files under their own names that are neither the old ones nor the new ones."""
    expected = contents(of.after)
    torn = [
        name
        for name, digest in contents(of.work).items()
        if not any(part.startswith(".") for part in name.split("/"))
        and not name.startswith("checkpoints/")
        and digest not in (before.get(name), expected.get(name))
    ]
    return f"not whole: {', '.join(torn)}" if torn else ""


def _first_other(found: object, expected: object) -> str:
    """The first part in which two lists of lists differ."""
    if isinstance(found, list | tuple) and isinstance(expected, list | tuple) and len(found) == len(expected):
        return next(_first_other(one, other) for one, other in zip(found, expected, strict=True) if one != other)
    return f"{str(found)[:500]} instead of {str(expected)[:500]}"


def short_of_memory(scene: Scene) -> Iterator[Outcome]:
    """Allocations fail, as under a batch system's limit of address space."""
    names = ("fetch", "hapt", "own", "train", "detect", "evaluate", "table", "figures")
    for number in range(scene.count(2, 24)):
        of = stage(names[(number * 3) % len(names)])
        left = scene.random.randint(*MEMORY_LEFT)
        of.begin()
        before = contents(of.work)
        first = call(of.work, of.commands, limit=left)
        said_so = first.status == 2 and "rdfa: error:" in first.output and "memory" in first.output
        wrong = "" if first.status <= 0 or said_so else f"it ended with {first.status}\n{first.output[-1500:]}"
        yield judged(of, f"{left / 2**20:.1f} MiB left", before, first, wrong)


KINDS = (
    Kind("stopped during fetch", during(at_an_event(), 2, 30, "fetch"), 300),
    Kind("stopped during conversion (HAPT, own files)", during(at_an_event(), 2, 40, "hapt", "own"), 300),
    Kind("stopped during a download from the Hub", downloading, 300),
    Kind("stopped during conversion (Hub)", converting, 300),
    Kind("stopped during training", during(at_an_event(), 2, 40, "train"), 300),
    Kind("stopped while a checkpoint is written", during(at_an_event("safetensors"), 2, 30, "train"), 300),
    Kind("stopped during detection", during(at_an_event(), 1, 15, "detect"), 300),
    Kind("stopped during evaluation", during(at_an_event(), 1, 25, "evaluate"), 300),
    Kind("stopped while a table is written", during(at_an_event("results/"), 1, 15, "table"), 300),
    Kind("stopped while figures are drawn", during(at_an_event(), 1, 20, "figures"), 300),
    Kind(
        "stopped while MLflow is written to",
        during(at_an_event("SQL|mlartifacts"), 1, 40, "train", "evaluate", "table", "imported"),
        300,
    ),
    Kind("killed for its memory", during(at_a_size, 1, 16, "fetch", "train", "detect", "figures"), 300),
    Kind("snakemake or its jobs stopped", snakemake_killed, 600),
    Kind("no memory left", short_of_memory, 300),
)
