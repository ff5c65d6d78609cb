"""The command line: parse, call one function, print. Heavy modules are imported by the command that needs them."""

import errno
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

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
        return options.command(options) or 0
    except RdfaError as error:
        from rdfa.schema import visible

        _say(f"rdfa: error: {visible(without_passwords(str(error)))}")
        return 2
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        _say(f"rdfa: error: {str(error.filename)[:80]}...: longer than names of files can be")
        return 2
    except KeyboardInterrupt:
        _say("rdfa: interrupted; the same command goes on from here")
        return 130
    except BrokenPipeError:
        return 141


def _say(last_words: str) -> None:
    # Of the processes that torchrun starts on a machine one speaks: they agree on what happened.
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with suppress(BrokenPipeError):  # a scheduler's signal may have ended the reader too
            print(last_words, file=sys.stderr)
