"""Maximum depth of a queue, its drain rate, and the Retry-After of rejected clients. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

from core.settings.models import Settings
from schemas.records import Queue

HALF_LIFE_S = 10.0
"""Half-life of the measured rate, seconds with waiting tasks: a new worker changes it within seconds."""
STALLED_S = 30.0
"""Seconds without a start although tasks wait; then the earlier rate is discarded."""
SETTLE_S = 1.0
"""Minimum observation, seconds; below it one immediate start would look like thousands per second."""
LEAST_RETRY_S, MOST_RETRY_S = 1.0, 300.0
UNKNOWN_RETRY_S = 60.0
"""Retry-After when nothing drains, seconds."""
HEADROOM = 10
"""Rejected clients retry when this share of the limit should be free, not all at the first free place."""
_DECAY = math.log(2) / HALF_LIFE_S


class Backlog(NamedTuple):
    """Depth of a queue and level, and its limit."""

    queue: str
    level: int
    waiting: int
    limit: int


def limit_of(settings: Settings, name: str, queue: Queue | None) -> int:
    """Return the maximum depth per level of a queue, 0 for no limit: its own setting, else the default."""
    if queue is not None and queue["max_waiting"] is not None:
        return queue["max_waiting"]
    listed = settings.queues.get(name)
    if listed is not None and listed.max_depth is not None:
        return listed.max_depth
    return settings.ingress.default_max_depth


class DrainRate:
    """Rate at which tasks start, measured while some wait: an idle queue is not a slow queue."""

    def __init__(self) -> None:
        self._began = 0.0
        self._busy_s = 0.0
        self._still_s = 0.0
        self._at_s: float | None = None
        """Start of the waiting time that is not in the sums yet; None while no task waits."""

    def set_waiting(self, some: bool, *, now_s: float) -> None:
        """Set whether tasks wait from now on."""
        self._advance(now_s)
        self._at_s = now_s if some else None

    def record_start(self, *, now_s: float) -> None:
        """Record the start of a task."""
        self._advance(now_s)
        self._began += 1
        self._still_s = 0.0

    def rate(self, *, now_s: float) -> float:
        """Return the task starts per second; 0 when nothing drains or nothing was measured yet."""
        self._advance(now_s)
        if self._still_s > STALLED_S:
            return 0.0
        return self._began / max(self._busy_s, SETTLE_S)

    def _advance(self, now_s: float) -> None:
        if self._at_s is None or now_s <= self._at_s:
            return
        passed_s, self._at_s = now_s - self._at_s, now_s
        remaining = math.exp(-_DECAY * passed_s)
        self._began *= remaining
        self._busy_s = self._busy_s * remaining + (1 - remaining) / _DECAY
        self._still_s += passed_s


def retry_after_s(waiting: int, limit: int, rate: float) -> float:
    """Return the seconds until a tenth of the limit should be free, within the bounds."""
    if rate <= 0:
        return UNKNOWN_RETRY_S
    due_s = (waiting - limit + max(1, limit // HEADROOM)) / rate
    return min(max(due_s, LEAST_RETRY_S), MOST_RETRY_S)
