"""Requests to stop, SIGINT and SIGTERM, kept until what must not be cut in two is done."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep SIGINT and SIGTERM until the end of the block, which must be short; a second one acts at once.

    Python raises KeyboardInterrupt anywhere: in the middle of a write that HDF5 has called for, which takes it for a
    disk that fails, or of a transaction, which then keeps an SQLite file locked against all that comes after.
    """
    received: list[int] = []
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            received.clear()
            restore()
            signal.raise_signal(number)

    with suppress(ValueError):  # not in the main thread: there no signal is handled
        for wanted in (signal.SIGINT, signal.SIGTERM):
            previous[wanted] = signal.signal(wanted, note)
    try:
        yield
    finally:
        restore()
    if received:
        signal.raise_signal(received[0])
