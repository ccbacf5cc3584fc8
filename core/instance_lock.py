"""Claim an instance number among processes that share a data directory.

The number is a file lock: the kernel releases it however the process ends, so a restarted process claims the number of
its predecessor and finds its local state; a second process claims the next number.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from core.errors import ConfigError, Unavailable

INSTANCES = 64
"""Maximum processes of a role per data directory."""


class InstanceLock:
    """A claimed number with its folder; released at the end of the `with` block or of the process."""

    def __init__(self, number: int, folder: Path, lock: int) -> None:
        self.number = number
        self.folder = folder
        self._lock: int | None = lock

    def release(self) -> None:
        """Release the number; idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def claim_instance(folder: Path, limit: int = INSTANCES) -> InstanceLock:
    """Claim the lowest free number under a folder.

    Raises ConfigError when the folder cannot be written, Unavailable when all numbers are taken.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(limit):
            own = folder / str(number)
            own.mkdir(exist_ok=True)
            lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            return InstanceLock(number, own, lock)
    except OSError as error:
        raise ConfigError(
            f"local state cannot be stored under {folder}: {error.strerror}; choose another data_dir"
        ) from error
    raise Unavailable(f"all {limit} instance numbers under {folder} are taken; stop a process or use another data_dir")
