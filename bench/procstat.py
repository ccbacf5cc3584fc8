"""CPU time and memory of other processes, read from /proc (Linux)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float | None:
    """Read a process's user and system time, reaped children included; None where there is no process or no /proc."""
    fields = _fields(pid)
    return None if fields is None else sum(map(int, fields[11:15])) / TICKS_PER_SECOND


def resident_mb(pid: int) -> float | None:
    """Read the resident memory of a process in MB."""
    fields = _fields(pid)
    return None if fields is None else int(fields[21]) * PAGE_BYTES / 1e6


def _fields(pid: int) -> list[str] | None:
    """Give the fields of /proc/PID/stat from the third (state) on: the second may hold spaces and brackets."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return line.rpartition(")")[2].split()


class CpuMeter:
    """Measures the CPU seconds that named processes spend inside a `with` block; `spent` holds them afterwards."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before: dict[str, float] = {}
        self.spent: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._before = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A process that died meanwhile is left out: its figure would be wrong, not small.
        self.spent = {name: now - self._before[name] for name, now in self._read().items() if name in self._before}

    def _read(self) -> dict[str, float]:
        return {name: seconds for name, pid in self._pids.items() if (seconds := cpu_seconds(pid)) is not None}

    def ms_per(self, count: int) -> dict[str, float]:
        """Divide what was spent by a number of tasks, in milliseconds each."""
        return {name: seconds * 1000 / count for name, seconds in self.spent.items()}
