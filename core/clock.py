"""Epoch milliseconds for records, and a deadline that the steps of a shutdown share."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]


def epoch_ms() -> int:
    """Return the wall clock, epoch milliseconds."""
    return time.time_ns() // 1_000_000


class Deadline:
    """Time limit of a shutdown or a partition revocation, shared by all its steps."""

    def __init__(self, seconds: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._end = monotonic() + seconds

    def left(self, at_most: float | None = None) -> float:
        """Return the remaining seconds, from 0 to `at_most`."""
        left = max(0.0, self._end - self._monotonic())
        return left if at_most is None else min(left, at_most)
