"""The time, and clocks that a test moves."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Return the time of day."""
    return time.time_ns() // 1_000_000


class MillisecondClock:
    """The time of day in whole milliseconds."""

    def __init__(self, now_ms: int = 1_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


class SecondClock:
    """A monotonic clock in seconds."""

    def __init__(self, now_s: float = 1_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class SteppingClock:
    """A monotonic clock that goes on by a step whenever it is read."""

    def __init__(self, step_s: float) -> None:
        self.now_s = 1_000.0
        self._step_s = step_s

    def monotonic(self) -> float:
        """Return the time, as the module `time` does."""
        self.now_s += self._step_s
        return self.now_s
