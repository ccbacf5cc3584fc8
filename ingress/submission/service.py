"""The submission service of every API: admit a task, write it to Kafka, and wait for its result."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from typing import NamedTuple

from starlette.requests import Request

from core.errors import HeadraceError, Unavailable, WriteUnconfirmed
from core.kafka.producer import Record
from core.observability.tracing import Span, describe, tracer
from core.settings.models import Settings
from ingress.auth.keys import Caller
from ingress.auth.rate_limits import KeyLimits
from ingress.http.request import traceparent
from ingress.metrics import Metrics
from ingress.read_model.recent_writes import RecentWrites
from ingress.submission.admission import QueueAdmission
from ingress.submission.compensation import CompensatingCancels
from ingress.submission.idempotency import DuplicateResolver
from ingress.submission.submitter import Submitter, Ticket
from ingress.waiting.blocking import BlockingWaiter, WaitOutcome
from ingress.waiting.waiters import Waiter, Waiters
from schemas import topics
from schemas.records import Result, Task

log = logging.getLogger(__name__)


class WaitingRequest(NamedTuple):
    """How a blocking request ended."""

    ticket: Ticket
    """Of the task whose result is returned: for a duplicate the original."""
    ended: Result | WaitOutcome


class PreparedTask(NamedTuple):
    """A task with its id, not written yet."""

    ticket: Ticket
    record: Record
    began: float
    caller: Caller
    span: Span
    """Of the write to Kafka; the task carries its trace context."""
    status_endpoint: str
    """Method and path by which clients of this API get the status of a task; for error messages."""


class TaskSubmission:
    """Submit tasks of every API: admission, limits, the write, and the blocking wait."""

    def __init__(
        self,
        settings: Settings,
        *,
        limits: KeyLimits,
        metrics: Metrics,
        waiters: Waiters,
        admission: QueueAdmission,
        submitter: Submitter,
        duplicates: DuplicateResolver,
        recent_writes: RecentWrites,
        compensation: CompensatingCancels,
    ) -> None:
        self._topics = [settings.topic(topics.tasks(level)) for level in (0, 1)]
        self._limits = limits
        self._metrics = metrics
        self._waiters = waiters
        self._admission = admission
        self._submitter = submitter
        self._duplicates = duplicates
        self._recent_writes = recent_writes
        self._compensation = compensation

    async def prepare(
        self, task: Task, *, caller: Caller, request: Request, status_endpoint: str = "GET /v1/tasks/{task_id}"
    ) -> PreparedTask:
        """Assign id and owner; raises RequestError and Unavailable. Nothing is accepted yet.

        A task that a full queue refuses does not count against the rate limit of its key.
        """
        began = time.perf_counter()
        if task["mode"] in ("blocking", "streaming"):
            self._waiters.check_room()
            self._limits.check_room(caller)
        await self._admission.admit(task, owner=caller.owner)
        self._limits.submit(caller, request.scope)
        span = tracer().span("send", "producer", parent=traceparent(request))
        ticket, record = await self._submitter.prepare(task, owner=caller.owner, traceparent=span.traceparent)
        return PreparedTask(ticket, record, began, caller, span, status_endpoint)

    async def submit(self, prepared: PreparedTask) -> Ticket:
        """Write a task without waiting for its result; returns the ticket of the original. Raises Unavailable."""
        await self.produce(prepared)
        return await self._duplicates.original_of(prepared.ticket)

    async def submit_and_wait(
        self, prepared: PreparedTask, request: Request, *, hold_s: float | None = None
    ) -> WaitingRequest:
        """Write a task and wait for its result, at most `hold_s`; a client that disconnects cancels it.

        Raises Unavailable. After a time-out the caller decides whether to cancel the task.
        """
        waiter = BlockingWaiter()
        async with self.registered(prepared.ticket, prepared.caller, waiter):
            await self.produce(prepared)
            ticket = prepared.ticket
            del prepared  # thousands of waiting requests must not hold their bodies
            async with self._duplicates.resolved_original(ticket, waiter) as counts:
                ended = await waiter.wait(request.receive, deadline_ms=counts.deadline_ms, hold_s=hold_s)
        if ended is WaitOutcome.GONE and not counts.keyed:
            await self.cancel(counts, reason=ended.value)
        return WaitingRequest(counts, ended)

    @asynccontextmanager
    async def registered(self, ticket: Ticket, caller: Caller, waiter: Waiter) -> AsyncIterator[None]:
        """Deliver results and chunks of a task while the block runs, within the concurrency limit of its key.

        Raises RateLimited and Unavailable, and then stores nothing of the task.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self._limits.holding(caller))
                stack.enter_context(self._waiters.registered(ticket.key, waiter))
            except HeadraceError:
                await self._submitter.forget(ticket)
                raise
            yield

    async def produce(self, prepared: PreparedTask) -> None:
        """Return when every in-sync replica has the task; raises Unavailable."""
        ticket = prepared.ticket
        with prepared.span as span:
            topic = self._topics[ticket.id.level]
            describe(span, "send", topic, key=ticket.text, partition=ticket.id.partition)
            self._admission.reserve(ticket.key)
            try:
                offset = await self._submitter.send(ticket, prepared.record)
            except Unavailable as error:
                self._admission.rollback(ticket.key)
                if isinstance(error, WriteUnconfirmed):
                    raise self._unconfirmed(ticket, prepared.status_endpoint) from error
                raise
            span.note({"messaging.kafka.offset": offset})
        self._recent_writes.add(ticket.owner, ticket.key, offset=offset)
        self._metrics.accepted_by[ticket.id.level, ticket.id.mode].inc()
        self._metrics.put_seconds.observe(time.perf_counter() - prepared.began)

    def resolved_original(self, ticket: Ticket, waiter: Waiter) -> AbstractAsyncContextManager[Ticket]:
        """Resolve a ticket to its original; see DuplicateResolver."""
        return self._duplicates.resolved_original(ticket, waiter)

    async def cancel(self, ticket: Ticket, *, reason: str) -> None:
        """Write the cancel of a task whose client has disconnected; if that fails, the task ends at its deadline."""
        try:
            await self._submitter.cancel(ticket.id, owner=ticket.owner, reason=reason)
        except Unavailable as error:
            log.warning(
                "cannot cancel task %s: %s",
                ticket.text,
                error,
                extra={"event": "cancel_failed", "task_id": ticket.text},
            )

    def _unconfirmed(self, ticket: Ticket, status_endpoint: str) -> WriteUnconfirmed:
        """Build the error for a task whose write was not confirmed, and schedule a compensating cancel."""
        unknown = f"Kafka did not confirm task {ticket.text} in time, so it may or may not be accepted"
        if ticket.keyed:  # a retry with the key resolves to the same task
            return WriteUnconfirmed(f"{unknown}; send it again with its Idempotency-Key", task_id=ticket.text)
        self._compensation.add(ticket)
        return WriteUnconfirmed(
            f"{unknown}; if it was, it is cancelled when Kafka is back. Look with {status_endpoint} before you send it "
            "again, or use an Idempotency-Key",
            task_id=ticket.text,
        )
