"""Roles as children of a process that has imported them: the imports are a second of CPU, and tests start hundreds.

The child is a process of its own, to be killed and frozen like any other; what it does from the command line on is what
`python -m headrace.main` does. Tests of `headrace up` and of the Compose file start roles as users do.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

IMPORTED = ("headrace.main", "headrace.commands.roles", "streams.main", "dispatcher.main", "ingress.main", __name__)

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(IMPORTED))
_lock = threading.Lock()
"""An exit code is read from a pipe, once; to start a process reads those of all others, too."""


class ForkedProcess:
    """A role process, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, arguments: Sequence[str], *, env: Mapping[str, str], log: Path) -> None:
        self._arguments = list(arguments)
        log.touch()  # it can be read from now on
        self._process = _context.Process(target=_run, args=(self._arguments, dict(env), str(log)), daemon=True)
        with _lock:
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        with _lock:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code."""
        give_up = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left_s = None if give_up is None else give_up - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise subprocess.TimeoutExpired(self._arguments, timeout or 0.0)
            multiprocessing.connection.wait([self._process.sentinel], left_s)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill -9."""
        self.send_signal(signal.SIGKILL)


@atexit.register
def _kill_all() -> None:
    """Kill what a test has left behind; to wait for its own end could take for ever."""
    for process in multiprocessing.active_children():
        process.kill()


def _run(arguments: list[str], env: dict[str, str], log: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv = ["headrace", *arguments]
    from headrace.main import main

    main(arguments)
