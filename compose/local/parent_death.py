"""Run a command that dies with its parent: `python -I -S parent_death.py PARENT_PID COMMAND ARGUMENT...`.

A program of its own, because neither the JVM nor the roles can ask the kernel for this themselves before their first
line runs, and a hook between fork and exec is unsafe in a process with threads. It becomes the command: same pid.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Request the signal, then exec the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # SIGKILL, because no supervisor is left to escalate. Kafka and the roles recover from it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the request was in effect
            os.kill(os.getpid(), signal.SIGKILL)
    os.execvp(command[0], command)  # noqa: S606 - the argument list comes from our own supervisor


if __name__ == "__main__":
    main()
