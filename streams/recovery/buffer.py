"""The seam that a crash leaves: what workers said of tasks whose own record has to be read once more. Pure.

A batch's work records are durable before its rows. When a scheduler dies in between, workers take and finish work whose
task its successor has yet to fold, and tasks and events are read in any order. So until the tasks of a partition are
folded up to where they ended at the assignment, what a worker says of an unknown task waits for that task; and an
attempt of which a worker has spoken is not handed out a second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from schemas.records import Event

WORKER_KINDS = frozenset(("claimed", "finished", "released", "progress"))
STOP_KINDS = frozenset(("batch_cancel", "batch_due"))
"""What stops a batch waits until all tasks are folded: which of its lines were tasks before the crash is known then."""
ATTEMPT_KINDS = frozenset(("claimed", "finished"))

Attempt = tuple[int, str, int]
"""Partition, task id, attempt."""


class PendingAck(NamedTuple):
    """An event that is read and has to wait; Faust has its acknowledgement already."""

    message: Any

    def ack(self) -> None:
        """Acknowledge nothing more."""


class PendingEvent(NamedTuple):
    """An event that waits for its task, as it was read and decoded."""

    source: Any
    event: Event


class RecoveryBuffer:
    """What is still to be read again after an assignment."""

    def __init__(self) -> None:
        self._ends: dict[int, int] = {}
        self._pending: dict[int, dict[str, list[PendingEvent]]] = {}
        self._attempts: frozenset[Attempt] = frozenset()

    def begin(self, ends: Mapping[int, int], attempts: Iterable[Attempt]) -> None:
        """Begin anew.

        Args:
            ends: partition → end of its tasks at the assignment, for those where not all of them are folded.
            spoken: attempts that workers have claimed or finished in events that are not folded yet.
        """
        self._ends = dict(ends)
        self._pending = {}
        self._attempts = frozenset(attempts)

    def must_wait(self, partition: int, event: Event) -> bool:
        """Tell whether an event about a task without a row has to wait for it."""
        return partition in self._ends and event["kind"] in WORKER_KINDS | STOP_KINDS

    def hold(self, partition: int, held: PendingEvent) -> None:
        """Keep an event until its task is folded."""
        self._pending.setdefault(partition, {}).setdefault(held.event["id"], []).append(held)

    def pop_task(self, partition: int, task_id: str) -> list[PendingEvent]:
        """Take the events that waited for a task, in their order."""
        return self._pending.get(partition, {}).pop(task_id, [])

    def was_attempted(self, partition: int, task_id: str, attempt: int) -> bool:
        """Tell whether a worker has this attempt, or had it."""
        return (partition, task_id, attempt) in self._attempts

    def pop_folded(self, partition: int, following: int) -> list[PendingEvent]:
        """Note that the tasks of a partition are folded up to an offset; returns what waited in vain once all are."""
        end = self._ends.get(partition)
        if end is None or following < end:
            return []
        del self._ends[partition]
        return [held for waiting in self._pending.pop(partition, {}).values() for held in waiting]
