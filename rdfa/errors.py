"""The one exception that stands for a user's mistake, and what no message may say."""

import re

_PASSWORD = re.compile(r"(\b[a-zA-Z][\w+.-]*://)[^\s/]*@")
_SYSTEM = re.compile(r"errno = \d+, error message = '([^']+)'")
"""In HDF5's account of what failed; the operating system's word."""


class RdfaError(Exception):
    """Something a user can mend: a wrong file, a wrong parameter, a full disk.

    The message says what was wrong, where, and what to do, in one or two lines. The command
    line prints it without a traceback and exits with status 2; everything else is a defect of
    rdfa and keeps its traceback.
    """


def without_passwords(text: str) -> str:
    """A message or address without the `user:password@` of the addresses in it."""
    return _PASSWORD.sub(r"\1", text)


def system_reason(error: BaseException) -> str | None:
    """Why the operating system would not read or write a file, out of HDF5's account of it; None if it was not that."""
    found = _SYSTEM.search(str(error))
    return found[1] if found else None


def in_one_line(error: BaseException) -> str:
    """What a library said, as one short line; of HDF5's long account the operating system's word, if there is one."""
    return system_reason(error) or " ".join(str(error).split())[:120]
