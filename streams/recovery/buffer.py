"""Buffers worker events whose task has to be read again after a crash. Pure.

The work records of a batch are durable before its state records. When a scheduler crashes in between, workers receive
and finish work of tasks that its successor has not processed yet; and task and event records are read in any order. So
until the tasks of a partition are processed up to their end at the assignment, a worker event about an unknown task
waits for that task; and an attempt that appears in worker events gets no second work record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from schemas.records import Event

WORKER_KINDS = frozenset(("claimed", "finished", "released", "progress"))
STOP_KINDS = frozenset(("batch_cancel", "batch_due"))
"""These wait until all tasks are processed: only then it is known which lines were tasks before the crash."""
ATTEMPT_KINDS = frozenset(("claimed", "finished"))

Attempt = tuple[int, str, int]
"""Partition, task id, attempt."""


class PendingAck(NamedTuple):
    """An event that has to wait; it is acknowledged in Faust already."""

    message: Any

    def ack(self) -> None:
        """Do nothing."""


class PendingEvent(NamedTuple):
    """An event that waits for its task, with its source record."""

    source: Any
    event: Event


class RecoveryBuffer:
    """Events that wait for tasks that are read again after an assignment."""

    def __init__(self) -> None:
        self._ends: dict[int, int] = {}
        self._pending: dict[int, dict[str, list[PendingEvent]]] = {}
        self._attempts: frozenset[Attempt] = frozenset()

    def begin(self, ends: Mapping[int, int], attempts: Iterable[Attempt]) -> None:
        """Reset the buffer after an assignment.

        Args:
            ends: partition → end of its tasks at the assignment, for partitions with unprocessed tasks.
            attempts: attempts that workers have claimed or finished in events that are not processed yet.
        """
        self._ends = dict(ends)
        self._pending = {}
        self._attempts = frozenset(attempts)

    def must_wait(self, partition: int, event: Event) -> bool:
        """Return whether an event about a task without a state record has to wait for it."""
        return partition in self._ends and event["kind"] in WORKER_KINDS | STOP_KINDS

    def hold(self, partition: int, pending: PendingEvent) -> None:
        """Hold an event until its task is processed."""
        self._pending.setdefault(partition, {}).setdefault(pending.event["id"], []).append(pending)

    def pop_task(self, partition: int, task_id: str) -> list[PendingEvent]:
        """Remove and return the events that waited for a task, in order."""
        return self._pending.get(partition, {}).pop(task_id, [])

    def was_attempted(self, partition: int, task_id: str, attempt: int) -> bool:
        """Return whether a worker has claimed or finished this attempt."""
        return (partition, task_id, attempt) in self._attempts

    def pop_unmatched(self, partition: int, offset: int) -> list[PendingEvent]:
        """Set the offset up to which tasks are processed; at the end, return the events whose task was not found."""
        end = self._ends.get(partition)
        if end is None or offset < end:
            return []
        del self._ends[partition]
        return [pending for waiting in self._pending.pop(partition, {}).values() for pending in waiting]
