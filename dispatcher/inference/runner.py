"""The work items of this process: admitted once, run in its own tasks, and reported until the report is durable."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from core.bounded_set import BoundedSet
from core.clock import Clock, Deadline
from core.observability.metrics import labelled
from core.settings.models import Settings
from dispatcher import metrics
from dispatcher.event_outbox import EventOutbox
from dispatcher.group_consumer import ReceivedRecord
from dispatcher.inference.attempt import AttemptWorker
from dispatcher.inference.concurrency import CallSlots
from dispatcher.inference.outcome import Failure, failure_outcome
from dispatcher.inference.progress import ProgressReporter
from dispatcher.inference.work_item import Key, Phase, WorkItem, decode_work
from schemas.events import event, task_event
from schemas.records import Event, EventKind, Outcome
from schemas.topics import LEVELS

log = logging.getLogger(__name__)

RECENT_ATTEMPTS = 50_000
"""Finished attempts that are remembered, so that a record received again after a rebalance is not run again."""


class Runner:
    """Admits, starts, cancels and returns work items."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        slots: CallSlots,
        worker: AttemptWorker,
        outbox: EventOutbox,
        is_cancelled: Callable[[str], bool],
        has_outcome: Callable[[str], bool] = lambda _: False,
        was_attempted: Callable[[Key], bool] = lambda _: False,
        clock: Clock,
    ) -> None:
        """`was_attempted` returns whether a worker has claimed, finished or returned an attempt before."""
        self._settings = settings
        self._prefix = settings.kafka.topic_prefix
        self._name = name
        self._slots = slots
        self._worker = worker
        self._outbox = outbox
        self._is_cancelled = is_cancelled
        self._has_outcome = has_outcome
        self._was_attempted = was_attempted
        self._clock = clock
        self.progress = ProgressReporter(settings, name=name, outbox=outbox, clock=clock)
        self._items: dict[Key, WorkItem] = {}
        self._by_id: dict[str, set[WorkItem]] = {}
        self._done: BoundedSet[Key] = BoundedSet(at_least=RECENT_ATTEMPTS)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        """Return the number of running calls."""
        return len(self._tasks)

    def admit(self, received: ReceivedRecord) -> WorkItem | None:
        """Decode a record and admit its work; None when there is nothing to run. Raises MalformedWork."""
        record: Any = received.record
        item = decode_work(self._settings, record)
        item.add_offset(received.tracker, record.offset)
        labelled(metrics.RECEIVED, LEVELS[item.work["level"]]).inc()
        known = self._items.get(item.key)
        if known is not None:
            known.add_offset(received.tracker, record.offset)
        if known is not None or self._is_repeat(item):
            metrics.DUPLICATES.inc()
        elif self._is_cancelled(item.work["id"]):
            metrics.CANCELLED.inc()
        else:
            self._items[item.key] = item
            self._by_id.setdefault(item.work["id"], set()).add(item)
            return item
        if known is None:
            item.complete()
        return None

    def _is_repeat(self, item: WorkItem) -> bool:
        return item.key in self._done or self._has_outcome(item.work["id"]) or self._was_attempted(item.key)

    def start(self, item: WorkItem) -> asyncio.Task[None] | None:
        """Run an item whose slot is acquired; the slot is released when the call ends. None when there is no call."""
        if item.phase is not Phase.ENDED and self._has_outcome(
            item.work["id"]
        ):  # an earlier attempt finished while it waited
            metrics.DUPLICATES.inc()
            self._close(item)
            self._forget(item)
        if item.phase is Phase.ENDED:  # as above, or cancelled while it waited
            self._slots.release(item.work["level"])
            return None
        item.phase = Phase.RUNNING
        item.task = asyncio.create_task(self._run(item), name=f"run-{item.work['id']}")
        self._tasks.add(item.task)
        item.task.add_done_callback(self._tasks.discard)
        return item.task

    def return_item(self, item: WorkItem, *, reason: str) -> None:
        """Return an item that has not started, to be run later by any worker."""
        if item.phase is not Phase.ENDED:
            self._put(item, self._event("released", item, reason=reason))
            metrics.RETURNED.inc()
            self._close(item)

    def cancel(self, task_id: str) -> None:
        """Close the calls of a task that the scheduler has ended; nothing is reported, its state is final."""
        for item in list(self._by_id.get(task_id, ())):
            if item.phase is not Phase.ENDED:
                metrics.CANCELLED.inc()
                self._close(item)
                self._forget(item)

    def due_claims(self) -> list[tuple[WorkItem, Event]]:
        """Return the items that need a claim now, with their events."""
        return [
            (item, self._event("claimed", item, streamed=item.delivered()))
            for item in self._items.values()
            if item.needs_claim
        ]

    async def wait(self, deadline: Deadline) -> None:
        """Wait for running calls until the deadline."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=deadline.left())

    def return_items(self, *, waiting_only: bool = False) -> int:
        """Return unfinished items, so that other workers run them at once; returns the number of items.

        A stream with delivered tokens is not returned: it must not start again, so it ends with what was delivered.
        """
        released = 0
        for item in list(self._items.values()):
            if item.phase is Phase.ENDED or (waiting_only and item.phase is Phase.RUNNING):
                continue
            if item.delivered() and item.interrupted is not None:
                self._report(item, item.interrupted())
            else:
                self.return_item(item, reason="the worker is stopping")
                released += 1
            self._close(item)
        return released

    async def _run(self, item: WorkItem) -> None:
        level = LEVELS[item.work["level"]]
        began = time.monotonic()
        labelled(metrics.RUNNING, level).inc()
        if item.work["mode"] == "streaming":
            self.progress.follow(item)
        try:
            outcome = await self._worker.run(item)
        except Exception as error:  # a defect of ours must end as an outcome, not as a task without an end
            log.exception(
                "task %s failed unexpectedly",
                item.work["id"],
                extra={"event": "run_crashed", "task_id": item.work["id"]},
            )
            outcome = failure_outcome(Failure.INTERNAL, started_ms=self._clock(), detail=type(error).__name__)
        finally:
            self.progress.forget(item)
            labelled(metrics.RUNNING, level).dec()
            metrics.CALL_SECONDS.observe(time.monotonic() - began)
            self._slots.release(item.work["level"])
        if item.phase is not Phase.ENDED:
            self._report(item, outcome)

    def _report(self, item: WorkItem, outcome: Outcome) -> None:
        item.finish()
        labelled(metrics.OUTCOMES, LEVELS[item.work["level"]], outcome["error_code"] or "none").inc()
        self._put(item, self._event("finished", item, outcome=outcome))

    def _event(
        self,
        kind: EventKind,
        item: WorkItem,
        *,
        streamed: bool = False,
        reason: str | None = None,
        outcome: Outcome | None = None,
    ) -> Event:
        task_id, attempt = item.key
        return event(
            kind,
            at_ms=self._clock(),
            task_id=task_id,
            attempt=attempt,
            worker=self._name,
            streamed=streamed,
            reason=reason,
            outcome=outcome,
        )

    def _put(self, item: WorkItem, happened: Event) -> None:
        addressed = task_event(self._prefix, item.work, happened, partition=item.home, traceparent=item.traceparent)
        self._outbox.enqueue(addressed).add_done_callback(lambda done: None if done.cancelled() else self._forget(item))

    def _close(self, item: WorkItem) -> None:
        item.finish()
        if item.task is not None:
            item.task.cancel()

    def _forget(self, item: WorkItem) -> None:
        item.complete()
        self._done.add(item.key)
        self._items.pop(item.key, None)
        items = self._by_id.get(item.work["id"])
        if items is not None:
            items.discard(item)
            if not items:
                del self._by_id[item.work["id"]]
