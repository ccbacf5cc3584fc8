"""How many tasks of one queue and level wait: by their rows, and those accepted here that have none yet. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from core.drain_rate import DrainRate
from schemas.records import State

STARTED_STATES = frozenset[State | None](("processing", "completed", "failed"))
"""States that a waiting task is in once its turn has come; a cancel frees a place as well, but is no pace to go by."""
LOST_S = 30.0
"""A task without a row that is so much older than one with its row has become none: it lies in the dead letters."""


@dataclass(slots=True)
class QueueDepth:
    """The count, told of every row and of every task that is accepted here."""

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
        """Take back a task that was not written."""
        self.unseen.pop(key, None)
        self.drain.set_waiting(self._some(), now_s=now_s)

    def change(self, key: bytes, before: State | None, after: State | None, *, now_s: float, timed: bool) -> None:
        """Follow a row; `timed` unless it tells of the past, as rows do that are read after a start."""
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
