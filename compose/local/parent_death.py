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
    """Ask for the signal, then become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # SIGKILL: what is asked to stop can refuse, and nobody is left to insist. Kafka and the roles survive it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the request stood
            os.kill(os.getpid(), signal.SIGKILL)
    os.execvp(command[0], command)  # noqa: S606 - the argument list comes from our own supervisor


if __name__ == "__main__":
    main()
