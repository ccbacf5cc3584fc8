"""`headrace up` as a process, for tests that need everything at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.simulator import Simulator
from bench.wire import Request
from core.settings.loader import environment
from tests.support.ports import free_port
from tests.support.waiting import eventually

KEY = "hr-local"
READY_S = 120
STOP_S = 60


class Stack:
    """A running stack; what it says of itself is read anew each time."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], url: str) -> None:
        self.folder, self.process, self.url = folder, process, url

    @property
    def described(self) -> dict[str, Any]:
        """Return stack.json."""
        found: dict[str, Any] = json.loads((self.folder / "stack.json").read_text())
        return found

    @property
    def kafka(self) -> str:
        """Return the broker's address."""
        return str(self.described["kafka"])

    def pid(self, role: str) -> int:
        """Return the process id of a role."""
        return int(self.described["roles"][role]["pid"])

    def kill(self, role: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill -9 a role, or end it by another signal, and wait until the supervisor has started it anew."""
        before = self.pid(role)
        os.kill(before, number)
        eventually(lambda: self.pid(role) != before, what=f"a new {role}")

    def ready(self) -> bool:
        """Ask /readyz."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:  # noqa: S310 - our own URL
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def logs(self) -> str:
        """Return the last lines of every log, for the message of a failed test."""
        files = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"== {file.name}\n" + "\n".join(file.read_text().splitlines()[-15:]) for file in files)


@contextmanager
def stack(folder: Path, *flags: str, **settings: object) -> Iterator[Stack]:
    """Run `headrace up` in a folder until the block ends; settings are dotted names with __ for the dot."""
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    env = {**clean, **environment({name.replace("__", "."): value for name, value in settings.items()})}
    command = [sys.executable, "-m", "headrace.main", "up", "--port", str(port), "--data-dir", str(folder), *flags]
    with (folder.parent / f"{folder.name}-up.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder.parent)
    running = Stack(folder, process, f"http://127.0.0.1:{port}")
    try:
        began = time.monotonic()
        while not running.ready():
            assert process.poll() is None, f"headrace up ended: {Path(log.name).read_text()[-2000:]}"
            late = time.monotonic() - began > READY_S
            assert not late, f"not ready: {Path(log.name).read_text()[-2000:]}\n{running.logs()}"
            time.sleep(0.1)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def call_of(simulator: Simulator, task_id: str) -> Request:
    """Return the one call that the model server has had of a task; there may have been calls of others since."""
    [call] = (call for call in simulator.recent if call.headers.get("x-task-id") == task_id)
    return call
