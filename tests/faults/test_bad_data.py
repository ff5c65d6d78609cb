"""A reader that crashes, hangs or answers wrong is counted as such; the cases after it are still judged."""

import faulthandler
import os
import random
import signal
import time
from collections import Counter

from tests.faults.bad_data_forked import judged
from tests.faults.bad_data_harm import drawn
from tests.faults.campaign import HUNG, SURVIVED, WRONG, Outcome


def judge(case: str) -> Outcome:
    if case == "crash":
        faulthandler.disable()  # its report would stand among the tests' lines
        os.kill(os.getpid(), signal.SIGSEGV)
    if case == "hang":
        time.sleep(60)
    if case == "much":
        try:
            bytearray(1 << 40)
        except MemoryError:
            return Outcome(WRONG, "a length was believed")
    return Outcome(SURVIVED)


def test_an_interpreter_that_dies_or_hangs_is_counted_and_the_others_are_judged() -> None:
    cases = ["well", "crash", "well", "hang", "much", "well"]
    outcomes = list(judged(cases, judge, str, limit=0.5))
    assert [each.verdict for each in outcomes] == [SURVIVED, WRONG, SURVIVED, HUNG, WRONG, SURVIVED]
    assert outcomes[1].what == "crash: the interpreter died of signal 11"


def test_harm_is_drawn_from_the_seed_alone_and_hits_every_class_as_often() -> None:
    data, classes = bytes(range(1, 201)), {"head": [(0, 8)], "payload": [(8, 190)], "tail": [(190, 200)]}
    harms = list(drawn(random.Random(0), data, classes, 300))
    assert harms == list(drawn(random.Random(0), data, classes, 300))
    assert set(Counter(harm.where for harm in harms).values()) == {100}
    assert all(harm.apply(data) != data for harm in harms)
    assert {harm.kind for harm in harms} == {"flip", "burst", "lost", "cut", "hole"}
