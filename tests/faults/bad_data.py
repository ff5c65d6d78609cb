"""Bad data: bits flip, sectors are lost and files end early, in every part of every file that rdfa reads.

Each harmed file is read through rdfa in a forked child. Right is an error that names the file, or the result of the
whole file; for files of others that carry no checksum also what a second reader finds in the harmed bytes.
"""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from rdfa.errors import RdfaError
from tests.faults import bad_data_archives, bad_data_files, bad_data_foreign
from tests.faults.bad_data_files import Subject
from tests.faults.bad_data_forked import judged
from tests.faults.bad_data_harm import Harm, drawn
from tests.faults.campaign import LOST, SURVIVED, WRONG, Kind, Outcome, Scene

MENDED_EVERY = 25
"""Of the harmed files whose message names a command, how many are mended by it: one in so many."""


@dataclass(frozen=True)
class Case:
    """A file, a damage of it, and whether the command that mends it is run."""

    subject: Subject
    harm: Harm
    mended: bool

    def __str__(self) -> str:
        return f"{self.subject.path.name}: {self.harm}"


def inject(make: Callable[[], list[Subject]], short: int, full: int, scene: Scene) -> Iterator[Outcome]:
    """Harm each of the files `make` makes."""
    subjects = make()
    each = -(-scene.count(short, full) // len(subjects))
    cases = [
        Case(subject, harm, subject.mend is not None and number % MENDED_EVERY == 0)
        for subject in subjects
        for number, harm in enumerate(drawn(scene.random, subject.original, subject.parts(subject.path), each))
    ]
    yield from judged(cases, judge, str)


def judge(case: Case) -> Outcome:
    """Harm the file, read it, and bring it back."""
    subject, harmed = case.subject, case.harm.apply(case.subject.original)
    subject.path.write_bytes(harmed)
    try:
        return _outcome(case, harmed)
    finally:
        subject.path.write_bytes(subject.original)


def _outcome(case: Case, harmed: bytes) -> Outcome:
    subject = case.subject
    try:
        value = subject.read()
    except RdfaError as error:
        if not any(name in str(error) for name in (subject.path.name, subject.named) if name):
            return Outcome(WRONG, f"{case}: the message does not name the file: {error}")
        return _mended(case)
    except Exception:
        return Outcome(WRONG, f"{case}:\n{traceback.format_exc(limit=-4)}")
    if value == subject.value or _is_right(subject, value, harmed):
        return Outcome(SURVIVED)
    return Outcome(WRONG, f"{case}: another result, in silence")


def _is_right(subject: Subject, value: object, harmed: bytes) -> bool:
    try:
        return subject.right is not None and subject.right(value, harmed)
    except Exception:  # the second reader finds nothing in it
        return False


def _mended(case: Case) -> Outcome:
    if case.mended and case.subject.mend is not None:
        try:
            case.subject.mend()
        except Exception:
            return Outcome(LOST, f"{case}: the next call does not mend it:\n{traceback.format_exc(limit=-4)}")
    return Outcome(SURVIVED)


def _kind(name: str, make: Callable[[], list[Subject]], short: int, full: int) -> Kind:
    return Kind(name, partial(inject, make, short, full))


KINDS = (
    _kind("feature stores", bad_data_files.store, 60, 2000),
    _kind("annotations, scores and manifests", bad_data_files.data_set, 50, 1200),
    _kind("a run's detections, metrics and records", bad_data_files.results, 50, 1500),
    _kind("checkpoints", bad_data_files.checkpoint, 30, 800),
    _kind("the state of a training", bad_data_files.state, 30, 800),
    _kind("parameter files", bad_data_files.parameters, 20, 400),
    _kind("annotations and detections of others", bad_data_foreign.results, 60, 1500),
    _kind("feature files of others", bad_data_foreign.features, 60, 1500),
    _kind("a user's own data", bad_data_foreign.own, 36, 900),
    _kind("archives of HAPT", bad_data_archives.hapt, 30, 800),
    _kind("parts from the Hub", bad_data_archives.hub, 20, 600),
)
