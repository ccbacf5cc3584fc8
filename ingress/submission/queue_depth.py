"""The depth of one queue and level: waiting rows, and tasks accepted here that have no row yet. Pure.

A module of its own because property tests drive it without a view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from core.drain_rate import DrainRate
from schemas.records import State

STARTED_STATES = frozenset[State | None](("processing", "completed", "failed"))
"""States after a task started; a cancel frees a place as well, but says nothing about the drain rate."""
LOST_S = 30.0
"""A task without a row that is this much older than one with a row was dead-lettered."""


@dataclass(slots=True)
class QueueDepth:
    """Counts from every row change and every task that is accepted here."""

    queued: int = 0
    """Rows in the state queued."""
    unseen: dict[bytes, float] = field(default_factory=dict)
    """Tasks accepted here whose row was not seen yet → when, the oldest first."""
    drain: DrainRate = field(default_factory=DrainRate)
    _seen_s: float = -math.inf
    """When the newest task was accepted of those whose row was seen."""

    def reserve(self, key: bytes, *, now_s: float) -> None:
        """Count a task that is about to be written."""
        self.unseen[key] = now_s
        self.drain.set_waiting(True, now_s=now_s)

    def rollback(self, key: bytes, *, now_s: float) -> None:
        """Remove a task that was not written."""
        self.unseen.pop(key, None)
        self.drain.set_waiting(self._some(), now_s=now_s)

    def change(self, key: bytes, before: State | None, after: State | None, *, now_s: float, timed: bool) -> None:
        """Apply a row change; `timed` is False for past changes, which are read after a start."""
        self.queued += (after == "queued") - (before == "queued")
        accepted_s = self.unseen.pop(key, None)
        if accepted_s is not None:
            self._seen_s = max(self._seen_s, accepted_s)
        if timed and after in STARTED_STATES and before in ("queued", None):
            self.drain.record_start(now_s=now_s)
        self.drain.set_waiting(self._some(), now_s=now_s)

    def total(self) -> int:
        """Return how many wait."""
        while self.unseen:
            key, accepted_s = next(iter(self.unseen.items()))
            if accepted_s + LOST_S >= self._seen_s:
                break
            del self.unseen[key]
        return self.queued + len(self.unseen)

    def _some(self) -> bool:
        return self.queued > 0 or bool(self.unseen)
