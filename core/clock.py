"""Time as the dispatcher uses it: epoch milliseconds in records, a deadline handed down every path that must end."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]


def epoch_ms() -> int:
    """Read the wall clock."""
    return time.time_ns() // 1_000_000


class Deadline:
    """How long a shutdown or a revoke may still take, shared by all its steps."""

    def __init__(self, seconds: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._end = monotonic() + seconds

    def left(self, at_most: float | None = None) -> float:
        """Return the seconds that are left, never below zero, and never above `at_most`."""
        left = max(0.0, self._end - self._monotonic())
        return left if at_most is None else min(left, at_most)
