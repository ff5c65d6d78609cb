"""The command line: parse, call one function, print. Heavy modules are imported by the command that needs them."""

import errno
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from rdfa.cli.arguments import parser
from rdfa.errors import RdfaError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 errors in data, 2 a user's mistake, 130 interrupted."""
    options = parser().parse_args(arguments)
    console = logging.StreamHandler()
    console.setLevel(logging.WARNING)  # progress goes to the bar on a terminal, and to the run's log file
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[console])
    logging.getLogger("rdfa").setLevel(logging.INFO)
    try:
        return options.command(options) or 0
    except RdfaError as error:
        _say(f"rdfa: error: {error}")
        return 2
    except KeyboardInterrupt:
        _say("rdfa: interrupted; the same command goes on from here")
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        _say(f"rdfa: error: {error.filename or 'a file'}: {error.strerror}; see to the disk, then call it again")
        return 2


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
