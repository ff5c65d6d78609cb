"""The first process of a pod: runs a script and passes SIGTERM on to all that it started.

Kubernetes signals the first process of a container only, and a shell there would ignore it. A training that gets the
signal saves its step; this process waits for that.
"""

import os
import signal
import subprocess
import sys
import time


def main() -> int:
    """Run `sh SCRIPT`; returns its exit status, or 143 if a signal ended it."""
    script = subprocess.Popen(["sh", sys.argv[1]], start_new_session=True)
    received: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        received.append(number)
        if group_lives(script.pid):
            os.killpg(script.pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)
    status = script.wait()
    while received and group_lives(script.pid):  # the training outlives the shells between it and us
        time.sleep(0.2)
    return 128 + signal.SIGTERM if received else status


def group_lives(group: int) -> bool:
    """Whether a process group has a member that runs; those that ended are reaped."""
    try:
        while os.waitpid(-group, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
