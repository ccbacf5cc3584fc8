"""What every submitting door does once it has a task: write it, and hold the request until its outcome is there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import NamedTuple

from starlette.requests import Request

from core.errors import HeadraceError, Unavailable, WriteUnconfirmed
from core.kafka.producer import Record
from core.observability.tracing import Span, describe, tracer
from ingress.auth.keys import Caller
from ingress.http.body import traceparent
from ingress.runtime import Services
from ingress.submission.idempotency import original_of, resolved_original
from ingress.submission.submitter import Ticket
from ingress.waiting.blocking import BlockingWaiter, WaitOutcome
from ingress.waiting.waiters import Waiter
from schemas import topics
from schemas.records import Result, Task


class WaitingRequest(NamedTuple):
    """How a held request ended."""

    ticket: Ticket
    """Of the task that answers: for a twin that of the first with its key."""
    ended: Result | WaitOutcome


class PreparedTask(NamedTuple):
    """A task with its id that is not written yet."""

    ticket: Ticket
    record: Record
    began: float
    caller: Caller
    span: Span
    """Of its way into Kafka; the task carries its context on."""


class TaskSubmission:
    """One route's way in; `look` is where its clients look for a task."""

    def __init__(self, services: Services, *, look: str = "GET /v1/tasks/{task_id}") -> None:
        self._services = services
        self._look = look

    async def prepare(self, task: Task, *, caller: Caller, request: Request) -> PreparedTask:
        """Give a task its id and owner; raises RequestError and Unavailable. Nothing is accepted yet.

        A task that its full queue refuses is not counted against what its key may submit.
        """
        began = time.perf_counter()
        if task["mode"] in ("blocking", "streaming"):
            self._services.waiters.check_room()
            self._services.limits.check_room(caller)
        await self._services.backlog.admit(task, owner=caller.owner)
        self._services.limits.submit(caller, request.scope)
        span = tracer().span("send", "producer", parent=traceparent(request))
        ticket, record = await self._services.submitter.prepare(task, owner=caller.owner, traceparent=span.traceparent)
        return PreparedTask(ticket, record, began, caller, span)

    async def accept(self, prepared: PreparedTask) -> Ticket:
        """Write a task that nobody waits for; the ticket is that of the first for a twin. Raises Unavailable."""
        await self.write(prepared)
        return await original_of(self._services, prepared.ticket)

    async def hold(self, prepared: PreparedTask, request: Request, *, hold_s: float | None = None) -> WaitingRequest:
        """Write a task and wait for its outcome, at most `hold_s`; a client that leaves cancels it.

        Raises Unavailable. After a time-out the caller says what becomes of the task.
        """
        waiter = BlockingWaiter()
        async with self.waiting(prepared.ticket, prepared.caller, waiter):
            await self.write(prepared)
            ticket = prepared.ticket
            del prepared  # thousands of held requests must not hold their bodies too
            async with resolved_original(self._services, ticket, waiter) as counts:
                ended = await waiter.wait(request.receive, deadline_ms=counts.deadline_ms, hold_s=hold_s)
        if ended is WaitOutcome.GONE and not counts.keyed:
            await self._services.cancel(counts, reason=ended.value)
        return WaitingRequest(counts, ended)

    @asynccontextmanager
    async def waiting(self, ticket: Ticket, caller: Caller, waiter: Waiter) -> AsyncIterator[None]:
        """Deliver news of a task as long as the block lasts, within what its key may hold.

        Raises RateLimited and Unavailable, and then keeps nothing of the task.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self._services.limits.holding(caller))
                stack.enter_context(self._services.waiters.registered(ticket.key, waiter))
            except HeadraceError:
                await self._services.submitter.forget(ticket)
                raise
            yield

    async def write(self, prepared: PreparedTask) -> None:
        """Return when every in-sync copy has the task; raises Unavailable."""
        ticket = prepared.ticket
        with prepared.span as span:
            topic = self._services.settings.topic(topics.tasks(ticket.id.level))
            describe(span, "send", topic, key=ticket.text, partition=ticket.id.partition)
            self._services.backlog.accepted(ticket.key)
            try:
                offset = await self._services.submitter.send(ticket, prepared.record)
            except Unavailable as error:
                self._services.backlog.refused(ticket.key)
                if isinstance(error, WriteUnconfirmed):
                    raise self._unconfirmed(ticket) from error
                raise
            span.note({"messaging.kafka.offset": offset})
        self._services.remember(ticket, offset)
        self._services.metrics.accepted_by[ticket.id.level, ticket.id.mode].inc()
        self._services.metrics.put_seconds.observe(time.perf_counter() - prepared.began)

    def _unconfirmed(self, ticket: Ticket) -> WriteUnconfirmed:
        """Say what is known of a task whose write was not confirmed, and take it back if that is possible."""
        unknown = f"Kafka did not confirm task {ticket.text} in time, so it may or may not be accepted"
        if ticket.keyed:  # the same key means the same task, whatever became of this write
            return WriteUnconfirmed(f"{unknown}; send it again with its Idempotency-Key", task_id=ticket.text)
        self._services.withdrawals.add(ticket)
        return WriteUnconfirmed(
            f"{unknown}; if it was, it is cancelled when Kafka is back. Look with {self._look} before you send it "
            "again, or use an Idempotency-Key",
            task_id=ticket.text,
        )
