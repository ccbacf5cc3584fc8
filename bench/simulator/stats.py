"""What the simulator saw: arrivals, ends, concurrency, and the same by key."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.wire import Outcome


def epoch_ms() -> int:
    """Read the wall clock, which other processes can compare with."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class KeyStats:
    """The counts of one key; times are epoch milliseconds."""

    arrivals: int = 0
    completed: int = 0
    arrival_ms: list[int] = field(default_factory=list)
    disconnect_ms: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Stats:
    """All counts. arrivals = completed + disconnects + aborted + current."""

    clock: Callable[[], int] = epoch_ms
    arrivals: int = 0
    completed: int = 0
    aborted: int = 0
    """Connections that the simulator broke off, as it was told to."""
    current: int = 0
    peak: int = 0
    disconnect_ms: list[int] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    """Answers by the status that they began with."""
    keys: dict[str, KeyStats] = field(default_factory=dict)

    @property
    def disconnects(self) -> int:
        """Count the clients that closed before their answer was complete."""
        return len(self.disconnect_ms)

    def arrived(self, key: str | None) -> int:
        """Count an arrival; return how many its key has had, this one included."""
        self.arrivals += 1
        self.current += 1
        self.peak = max(self.peak, self.current)
        if key is None:
            return 1
        entry = self.keys.get(key)
        if entry is None:
            entry = self.keys[key] = KeyStats()
        entry.arrivals += 1
        entry.arrival_ms.append(self.clock())
        return entry.arrivals

    def answered(self, status: int) -> None:
        """Count an answer by its status."""
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def ended(self, key: str | None, outcome: Outcome) -> None:
        """Count the end of an arrival."""
        self.current -= 1
        entry = self.keys.get(key) if key is not None else None
        if outcome is Outcome.COMPLETED:
            self.completed += 1
            if entry is not None:
                entry.completed += 1
        elif outcome is Outcome.DISCONNECTED:
            now = self.clock()
            self.disconnect_ms.append(now)
            if entry is not None:
                entry.disconnect_ms.append(now)
        else:
            self.aborted += 1

    def reset(self) -> None:
        """Forget everything but what is still running, which then counts as arrived."""
        self.arrivals = self.peak = self.current
        self.completed = self.aborted = 0
        self.disconnect_ms = []
        self.statuses = {}
        self.keys = {}

    def as_json(self, *, key: str | None = None) -> dict[str, object]:
        """Give the counts of one key, or all."""
        if key is not None:
            return _key_json(self.keys.get(key, KeyStats()))
        return {
            "arrivals": self.arrivals,
            "completed": self.completed,
            "disconnects": self.disconnects,
            "aborted": self.aborted,
            "current": self.current,
            "peak": self.peak,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "disconnect_ms": self.disconnect_ms,
            "keys": {name: _key_json(entry) for name, entry in self.keys.items()},
        }


def _key_json(entry: KeyStats) -> dict[str, object]:
    return {
        "arrivals": entry.arrivals,
        "completed": entry.completed,
        "disconnects": len(entry.disconnect_ms),
        "arrival_ms": entry.arrival_ms,
        "disconnect_ms": entry.disconnect_ms,
    }
