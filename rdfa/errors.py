"""The one exception that stands for a user's mistake, and what no message may say."""

import re

_PASSWORD = re.compile(r"(\b[a-zA-Z][\w+.-]*://)[^\s/]*@")


class RdfaError(Exception):
    """Something a user can mend: a wrong file, a wrong parameter, a full disk.

    The message says what was wrong, where, and what to do, in one or two lines. The command
    line prints it without a traceback and exits with status 2; everything else is a defect of
    rdfa and keeps its traceback.
    """


def without_passwords(text: str) -> str:
    """A message or address without the `user:password@` of the addresses in it."""
    return _PASSWORD.sub(r"\1", text)
