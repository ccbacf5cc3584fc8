"""One pull queue and level: its waiting tasks in order, its leased tasks, and counts. Pure.

A fold of the status rows. Only the oldest waiting tasks are held in memory; when few of them are left and there are
more, `is_exhausted` requests another scan over the rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.records import TERMINAL, Status

MAX_WAITING = 100_000
"""Waiting tasks held per queue and level: about 25 MB; another scan over the rows adds the next."""


class QueueLevel(NamedTuple):
    """A queue and a level, written as `queue:level`."""

    queue: str
    level: int

    def __str__(self) -> str:
        return f"{self.queue}:{self.level}"


class Candidate(NamedTuple):
    """A waiting task, in the order in which tasks are handed out."""

    created_ms: int
    id: str


class PullCounts(NamedTuple):
    """Counts over the known rows of a queue and level."""

    put: int = 0
    loaded: int = 0
    """Handed to a worker at least once."""
    completed: int = 0
    """Ended, successfully or not."""


NOTHING = PullCounts()


@dataclass(slots=True)
class PullQueue:
    """State of one queue and level; rows are applied in any order, each with its previous version."""

    limit: int = MAX_WAITING
    held: set[str] = field(default_factory=set)
    counts: PullCounts = NOTHING
    newest: Candidate | None = None
    newest_loaded: Candidate | None = None
    _waiting: dict[str, Candidate] = field(default_factory=dict)
    _heap: list[Candidate] = field(default_factory=list)
    _last: Candidate | None = None
    """The last task held in memory, when there are more."""

    @property
    def is_exhausted(self) -> bool:
        """Return whether few tasks are left in memory while more wait."""
        return self._last is not None and len(self._waiting) * 4 <= self.limit

    def restart(self) -> None:
        """Accept waiting tasks up to the limit again: the rows are about to be scanned again."""
        self._last = None

    def change(self, before: Status | None, after: Status | None) -> None:
        """Apply a change of a row; None means no row. Rows of duplicates and of early cancels are not counted."""
        old, new = _contribution(before), _contribution(after)
        put, loaded, completed = (had + now - was for had, was, now in zip(self.counts, old, new, strict=True))
        self.counts = PullCounts(put, loaded, completed)
        self.observe(after, gone=before["id"] if before is not None else None)
        if after is None or not new.put:
            return
        candidate = Candidate(after["created_ms"], after["id"])
        self.newest = max(self.newest or candidate, candidate)
        if new.loaded:
            self.newest_loaded = max(self.newest_loaded or candidate, candidate)

    def observe(self, row: Status | None, *, gone: str | None = None) -> None:
        """Record the state of a row without counting it."""
        key = row["id"] if row is not None else gone
        if key is None:
            return
        state = row["state"] if row is not None else None
        if state == "processing":
            self.held.add(key)
        else:
            self.held.discard(key)
        if row is not None and state == "queued" and row["not_before_ms"] is None:
            self._wait(Candidate(row["created_ms"], row["id"]))
        else:
            self._waiting.pop(key, None)

    def oldest(self, count: int, *, before_ms: int, skip: Collection[str] = ()) -> list[Candidate]:
        """List the oldest waiting tasks that were created before a time, without those to be skipped."""
        found: list[Candidate] = []
        seen: list[Candidate] = []
        for candidate in self._in_order(seen):
            if candidate.created_ms >= before_ms or len(found) == count:
                break
            if candidate.id not in skip:
                found.append(candidate)
        for candidate in seen:
            heapq.heappush(self._heap, candidate)
        return found

    def _in_order(self, seen: list[Candidate]) -> Iterator[Candidate]:
        """Pop waiting tasks from the heap, which the caller pushes back; tasks that no longer wait are dropped."""
        last = None
        while self._heap:
            candidate = heapq.heappop(self._heap)
            if candidate == last or self._waiting.get(candidate.id) != candidate:
                continue
            last = candidate
            seen.append(candidate)
            yield candidate

    def _wait(self, candidate: Candidate) -> None:
        if candidate.id in self._waiting or (self._last is not None and candidate > self._last):
            return
        self._waiting[candidate.id] = candidate
        heapq.heappush(self._heap, candidate)
        if len(self._waiting) > self.limit:
            self._forget()

    def _forget(self) -> None:
        """Drop the newest quarter, so that this runs once for many tasks."""
        self._heap = sorted(self._waiting.values())[: self.limit * 3 // 4]
        self._waiting = {candidate.id: candidate for candidate in self._heap}
        self._last = self._heap[-1] if self._heap else None


def _contribution(row: Status | None) -> PullCounts:
    if row is None or row["duplicate_of"] is not None or row["source_offset"] < 0:
        return NOTHING
    return PullCounts(1, row["started_ms"] is not None, row["state"] in TERMINAL)
