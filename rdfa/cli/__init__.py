"""The command line: parse, call one function, print. Heavy modules are imported by the command that needs them."""

import errno
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from rdfa.cli.arguments import parser
from rdfa.errors import RdfaError, without_passwords


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 errors in data, 2 a user's mistake, 130 interrupted."""
    options = parser().parse_args(arguments)
    console = logging.StreamHandler()
    console.setLevel(logging.WARNING)  # progress goes to the bar on a terminal, and to the run's log file
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[console])
    logging.getLogger("rdfa").setLevel(logging.INFO)
    try:
        with _stopped_by_schedulers_too():
            return options.command(options) or 0
    except RdfaError as error:
        from rdfa.schema import visible

        _say(f"rdfa: error: {visible(without_passwords(str(error)))}")
        return 2
    except KeyboardInterrupt:
        _say("rdfa: interrupted; the same command goes on from here")
        return 130
    except BrokenPipeError:
        return 141
    except Exception as error:
        told = _of_the_machine(error)
        if told is None:
            raise
        _say(f"rdfa: error: {told}")
        return 2


def _of_the_machine(error: Exception) -> str | None:
    """What a person can do about a failure of disk or memory; None for a defect of rdfa, which keeps its traceback."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"{str(error.filename)[:80]}...: longer than names of files can be"
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return f"{error.filename or 'a file'}: {error.strerror}; see to the disk, then call it again"
    if _is_of_memory(error):
        said = " ".join(str(error).split())[:160] or type(error).__name__
        return (
            f"out of memory ({said}); give the command more (schedulers: runtime.memory_mb) or the run less to hold "
            "(training.batch_size, windows.max_length), and call it again"
        )
    return None


@contextmanager
def _stopped_by_schedulers_too() -> Iterator[None]:
    """Let SIGTERM act like Ctrl-C, so that what is begun is tidied up and the MLflow run is marked as killed."""
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not in the main thread: whoever runs us there stops us otherwise
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _is_of_memory(error: BaseException | None) -> bool:
    """Whether an allocation failed: here, in a library that words it its own way, or in what led to the error."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if any(words in str(error).lower() for words in _OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


_OF_MEMORY = (
    *("can't allocate memory", "cannot allocate memory", "unable to allocate", "out of memory", "new thread"),
    "could not create a primitive",  # oneDNN's words
)

_OF_THE_DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENXIO, errno.ENOENT, errno.ENOTDIR),
)
"""Full, not permitted, gone: no defect of rdfa, wherever it is met first."""


def _say(last_words: str) -> None:
    # Of the processes that torchrun starts on a machine one speaks: they agree on what happened.
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with suppress(BrokenPipeError):  # a scheduler's signal may have ended the reader too
            print(last_words, file=sys.stderr)
