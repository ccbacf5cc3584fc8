"""Freeze a process, as a suspended machine does, and return only once it stands still."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.waiting import eventually

STOPPED = frozenset("TtZX")
"""States of /proc/PID/task/TID/stat in which a thread does nothing any more."""


def freeze(pid: int) -> None:
    """Send SIGSTOP and wait until no thread runs: the signal returns before the threads on other cores have stopped."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: _states(pid) <= STOPPED, what=f"process {pid} to stop")


def thaw(pid: int) -> None:
    """Let it run again."""
    os.kill(pid, signal.SIGCONT)


def _states(pid: int) -> set[str]:
    """Return the states of all threads; empty where the system has no /proc."""
    states = set()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.add(stat.read_text().rpartition(")")[2].split()[0])
        except (FileNotFoundError, ProcessLookupError):  # the thread has ended
            continue
    return states
