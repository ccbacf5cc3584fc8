"""In-memory index over the table: which worker holds which tasks, which workers are alive, what is due. Pure.

Only what is due within the horizon is in memory, so a million waiting tasks need no memory here; a sweep over the table
adds the next ones.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from schemas.batches import Batch
from schemas.records import Status, Worker
from streams.state_machine.batch_rows import due_ms
from streams.state_machine.rows import is_early_cancel, next_deadline_ms

HORIZON_MS = 600_000
SWEEP_MS = 300_000
"""Interval of the sweeps: half the horizon, so that no due time is missed."""
ACTIVE = ("queued", "processing")

DueKind = Literal["deadline", "retry_due", "lease_over", "expire", "batch_due"]


class Due(NamedTuple):
    """A due time of a task or batch."""

    at_ms: int
    kind: DueKind
    partition: int
    task_id: str


@dataclass(slots=True)
class WorkerLastSeen:
    """The last heartbeat of a worker in one partition."""

    received_ms: int
    info: Worker
    reported_ms: int = 0


@dataclass(slots=True)
class StateIndex:
    """The index over all owned partitions."""

    holders: dict[tuple[int, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    workers: dict[int, dict[str, WorkerLastSeen]] = field(default_factory=lambda: defaultdict(dict))
    used_seconds: dict[tuple[int, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    """(Partition, queue number) → seconds that the line ids of batches use."""
    batch_retention_ms: int = 0
    _heap: list[Due] = field(default_factory=list)

    def clear(self) -> None:
        """Remove everything, before a rebuild."""
        self.holders.clear()
        self.workers.clear()
        self.used_seconds.clear()
        self._heap.clear()

    def update(self, partition: int, before: Status | None, after: Status | None, *, now_ms: int) -> None:
        """Index a task's state record that has become durable."""
        if before is not None and before["state"] == "processing" and before["worker"]:
            self.holders[partition, before["worker"]].discard(before["id"])
        if after is None:
            return
        if after["state"] == "processing" and after["worker"] and after["lease_until_ms"] is None:
            self.holders[partition, after["worker"]].add(after["id"])
            if after["worker"] not in self.workers[partition]:
                self.record_heartbeat(partition, after["worker"], now_ms=now_ms)
        self.schedule(partition, after, now_ms=now_ms, fresh=before is None or is_early_cancel(before))

    def schedule(self, partition: int, row: Status, *, now_ms: int, fresh: bool = True) -> None:
        """Schedule the due times of a task within the horizon; deadlines only once, because they never change."""
        if row["state"] in ACTIVE:
            if fresh:
                for at_ms in {next_deadline_ms(row), row["deadline_ms"]}:
                    self._push(Due(at_ms, "deadline", partition, row["id"]), now_ms)
            if row["not_before_ms"] is not None:
                self._push(Due(row["not_before_ms"], "retry_due", partition, row["id"]), now_ms)
            if row["lease_until_ms"] is not None:
                self._push(Due(row["lease_until_ms"], "lease_over", partition, row["id"]), now_ms)
        elif row["expires_ms"] is not None:
            self._push(Due(row["expires_ms"], "expire", partition, row["id"]), now_ms)

    def update_batch(self, partition: int, before: Batch | None, after: Batch | None, *, now_ms: int) -> None:
        """Index a batch's state record that has become durable."""
        if after is None:
            if before is not None:
                self.used_seconds[partition, before["queue_number"]].discard(before["stamp_s"])
            return
        self.used_seconds[partition, after["queue_number"]].add(after["stamp_s"])
        if before is None or before["state"] != after["state"]:
            self.schedule_batch(partition, after, now_ms=now_ms)

    def schedule_batch(self, partition: int, batch: Batch, *, now_ms: int) -> None:
        """Schedule the end of a batch's completion window or retention if it is within the horizon."""
        at_ms = due_ms(batch, retention_ms=self.batch_retention_ms)
        if at_ms is not None:
            self._push(Due(at_ms, "batch_due", partition, batch["id"]), now_ms)

    def second_in_use(self, partition: int, queue_number: int, stamp_s: int) -> bool:
        """Return whether the line ids of a batch use this second."""
        return stamp_s in self.used_seconds[partition, queue_number]

    def _push(self, due: Due, now_ms: int) -> None:
        if due.at_ms <= now_ms + HORIZON_MS:
            heapq.heappush(self._heap, due)

    def due(self, *, now_ms: int, limit: int = 1000) -> list[Due]:
        """Remove and return what is due."""
        ready: list[Due] = []
        while self._heap and self._heap[0].at_ms <= now_ms and len(ready) < limit:
            ready.append(heapq.heappop(self._heap))
        return ready

    def reschedule(self, due: list[Due], *, delay_ms: int, now_ms: int) -> None:
        """Schedule these again after a delay: their events could not be written."""
        for entry in due:
            self._push(entry._replace(at_ms=now_ms + delay_ms), now_ms)

    def next_due_ms(self) -> int | None:
        """Return the next due time."""
        return self._heap[0].at_ms if self._heap else None

    def record_heartbeat(
        self, partition: int, worker: str, *, now_ms: int, seen_ms: int = 0, running: int = 0, upstreams_up: int = 0
    ) -> bool:
        """Store a heartbeat; returns whether the worker is new or the number of its healthy upstreams changed."""
        before = self.workers[partition].get(worker)
        info: Worker = {
            "name": worker,
            "seen_ms": seen_ms or now_ms,
            "running": running,
            "upstreams_up": upstreams_up,
        }
        self.workers[partition][worker] = WorkerLastSeen(now_ms, info)
        return before is None or before.info["upstreams_up"] != upstreams_up

    def is_expired(self, partition: int, worker: str, *, now_ms: int, lease_ms: int) -> bool:
        """Return whether the lease of a worker has expired."""
        seen = self.workers[partition].get(worker)
        return seen is None or now_ms - seen.received_ms > lease_ms

    def expired_workers(self, *, now_ms: int, lease_ms: int, since_ms: int = 0) -> list[tuple[int, str]]:
        """Return workers whose lease has expired, each once per lease; those that hold no task are removed.

        Leases run only while Kafka is available, which it is since `since_ms`.
        """
        found: list[tuple[int, str]] = []
        for partition, workers in self.workers.items():
            for worker, seen in list(workers.items()):
                if now_ms - max(seen.received_ms, since_ms) <= lease_ms:
                    continue
                if not self.holders.get((partition, worker)):
                    del workers[worker]
                elif now_ms - seen.reported_ms > lease_ms:
                    seen.reported_ms = now_ms
                    found.append((partition, worker))
        return found

    def remove_worker(self, partition: int, worker: str) -> None:
        """Remove a worker and what it holds."""
        self.workers[partition].pop(worker, None)
        self.holders.pop((partition, worker), None)

    def alive(self, *, now_ms: int, lease_ms: int) -> list[Worker]:
        """Return the live workers, each with its newest heartbeat."""
        best: dict[str, WorkerLastSeen] = {}
        for workers in self.workers.values():
            for name, seen in workers.items():
                if now_ms - seen.received_ms <= lease_ms and (
                    name not in best or best[name].received_ms < seen.received_ms
                ):
                    best[name] = seen
        return [best[name].info for name in sorted(best)]
