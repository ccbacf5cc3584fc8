"""The folder of a stack: its lock, its ports, and stack.json with processes and ports for other programs."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from compose.local.cache import write_atomic
from compose.local.errors import LocalStackError
from compose.local.ports import free_port, is_free, previous_or_free_port


class StackFolder:
    """The data directory of a stack."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._ports = self.path / "ports.json"
        self._stack = self.path / "stack.json"

    def log(self, name: str) -> Path:
        """Return the log file of a child."""
        return self.path / "logs" / f"{name}.log"

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Lock the folder; raises if it cannot be written or another stack has locked it.

        The kernel releases the lock when this process ends for any reason. stack.json is deleted with the lock, so that
        it never describes a stopped stack.
        """
        with self._lock():
            self._stack.unlink(missing_ok=True)
            try:
                yield
            finally:
                self._stack.unlink(missing_ok=True)

    def _lock(self) -> IO[str]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "stack.lock").open("a")
        except OSError as error:
            raise LocalStackError(
                f"cannot use the data directory {self.path}: {error.strerror}; choose a writable one with --data-dir"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise LocalStackError(
                f"the data directory {self.path} is in use by another stack: stop that one, or use another directory "
                "with --data-dir"
            ) from error
        return lock

    def ports(self, fixed: Mapping[str, int]) -> dict[str, int]:
        """Return a port for each name, the previous one if it is free, and store them.

        Args:
            fixed: name → the port the settings ask for, or 0 for any.
        """
        before = self._remembered()
        chosen: dict[str, int] = {}
        for name, port in fixed.items():
            if port and (not is_free(port) or port in chosen.values()):
                raise LocalStackError(f"port {port} for the {name} is in use: set local.{name}_port to another or to 0")
            found = port or previous_or_free_port(before.get(name))
            while found in chosen.values():
                found = free_port()
            chosen[name] = found
        write_atomic(self._ports, json.dumps({**before, **chosen}, indent=2))
        return chosen

    def _remembered(self) -> dict[str, int]:
        try:
            return {name: port for name, port in json.loads(self._ports.read_text()).items() if isinstance(port, int)}
        except (FileNotFoundError, ValueError, AttributeError):
            return {}  # a corrupt file only means new ports

    def publish(self, stack: Mapping[str, Any]) -> None:
        """Replace stack.json atomically."""
        write_atomic(self._stack, json.dumps(stack, indent=2) + "\n")
