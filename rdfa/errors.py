"""The one exception that stands for a user's mistake."""


class RdfaError(Exception):
    """Something a user can mend: a wrong file, a wrong parameter, a full disk.

    The message says what was wrong, where, and what to do, in one or two lines. The command
    line prints it without a traceback and exits with status 2; everything else is a defect of
    rdfa and keeps its traceback.
    """
