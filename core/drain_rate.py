"""How much of a queue may wait, how fast it drains, and when a refused client should come again. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

from core.settings.models import Settings
from schemas.records import Queue

HALF_LIFE_S = 10.0
"""After so many seconds of waiting tasks what was measured counts half: a new worker shows within seconds."""
STALLED_S = 30.0
"""So long nothing began although tasks waited: then the rate of before tells nothing any more."""
SETTLE_S = 1.0
"""Below this one task that began at once would look like a rate of thousands."""
LEAST_RETRY_S, MOST_RETRY_S = 1.0, 300.0
UNKNOWN_RETRY_S = 60.0
"""Nothing drains: nobody knows when it will."""
HEADROOM = 10
"""Who was refused comes again when a tenth of the limit is free: at one free place all of them would."""
_DECAY = math.log(2) / HALF_LIFE_S


class Backlog(NamedTuple):
    """How many tasks of a queue and level wait, and how many may."""

    queue: str
    level: int
    waiting: int
    limit: int


def limit_of(settings: Settings, name: str, queue: Queue | None) -> int:
    """Return how many tasks of each level may wait in a queue, 0 for no limit: as it was set, else by the settings."""
    if queue is not None and queue["max_waiting"] is not None:
        return queue["max_waiting"]
    listed = settings.queues.get(name)
    if listed is not None and listed.max_depth is not None:
        return listed.max_depth
    return settings.ingress.default_max_depth


class DrainRate:
    """How fast tasks begin, over the time in which some waited: an idle queue is not a slow one."""

    def __init__(self) -> None:
        self._began = 0.0
        self._busy_s = 0.0
        self._still_s = 0.0
        self._at_s: float | None = None
        """Since when tasks wait, as far as that is not in the sums yet; None while none does."""

    def set_waiting(self, some: bool, *, now_s: float) -> None:
        """Note whether tasks wait from now on."""
        self._advance(now_s)
        self._at_s = now_s if some else None

    def record_start(self, *, now_s: float) -> None:
        """Note that a task began."""
        self._advance(now_s)
        self._began += 1
        self._still_s = 0.0

    def rate(self, *, now_s: float) -> float:
        """Return the tasks that begin per second; 0 when nothing drains, or nothing was seen yet."""
        self._advance(now_s)
        if self._still_s > STALLED_S:
            return 0.0
        return self._began / max(self._busy_s, SETTLE_S)

    def _advance(self, now_s: float) -> None:
        if self._at_s is None or now_s <= self._at_s:
            return
        passed_s, self._at_s = now_s - self._at_s, now_s
        kept = math.exp(-_DECAY * passed_s)
        self._began *= kept
        self._busy_s = self._busy_s * kept + (1 - kept) / _DECAY
        self._still_s += passed_s


def retry_after_s(waiting: int, limit: int, rate: float) -> float:
    """Return the seconds until a tenth of the limit should be free, within bounds."""
    if rate <= 0:
        return UNKNOWN_RETRY_S
    due_s = (waiting - limit + max(1, limit // HEADROOM)) / rate
    return min(max(due_s, LEAST_RETRY_S), MOST_RETRY_S)
