"""Requests with an Idempotency-Key: which task is the original, and how a duplicate gets its result.

The scheduler decides; requests that carry a key wait for its row. A duplicate receives no chunks: its stream is made
from the stored result, because earlier chunks are no longer at the end of the topic.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import TopicPartition

from core.clock import epoch_ms
from core.errors import Gone, IdempotencyConflict, Unavailable
from core.kafka.log_reader import LogReader
from core.kafka.task_records import result_of
from core.settings.models import Settings
from ingress.read_model.task_view import TaskView
from ingress.submission.submitter import Ticket
from ingress.waiting.blocking import timeout_s_of
from ingress.waiting.waiters import Waiter
from schemas import ids, topics
from schemas.records import TERMINAL, Result, Status

log = logging.getLogger(__name__)

DECISION_TIMEOUT_S = 10.0
"""A row appears within milliseconds; a scheduler that restarts after a crash may take this long."""
RETRY_S = 0.5
RESULT_READ_MS = 10_000
"""Time to read a stored result, for duplicates of a task whose deadline has passed."""


class DuplicateResolver:
    """Resolve a task with an Idempotency-Key to the task that was submitted first with the key."""

    def __init__(self, settings: Settings, *, view: TaskView, log_reader: LogReader) -> None:
        self._settings = settings
        self._view = view
        self._log_reader = log_reader

    async def original_of(self, ticket: Ticket) -> Ticket:
        """Return the ticket of the original task: its own, or that of the first task with its key.

        Raises IdempotencyConflict, and Unavailable when the scheduler did not decide in time: then a retry with the key
        is safe.
        """
        if not ticket.keyed:
            return ticket
        row = await self._view.wait(ticket.key, seconds=DECISION_TIMEOUT_S)
        if row is None:
            raise Unavailable(
                "the task was written but not yet compared with others of its Idempotency-Key; send it again with the "
                "key"
            ).with_task(ticket.text)
        if row["error_code"] == IdempotencyConflict.code:
            raise IdempotencyConflict(row["error_message"], field="Idempotency-Key").with_task(row["duplicate_of"])
        if row["duplicate_of"] is None:
            return ticket
        key = row["duplicate_of"].encode()
        first = await self._view.wait(key, seconds=DECISION_TIMEOUT_S)
        deadline_ms = max(first["deadline_ms"] if first is not None else 0, epoch_ms() + RESULT_READ_MS)
        return Ticket(ids.parse(row["duplicate_of"]), key, ticket.owner, deadline_ms, keyed=True)

    @asynccontextmanager
    async def resolved_original(self, ticket: Ticket, waiter: Waiter) -> AsyncIterator[Ticket]:
        """Yield the ticket of the original; its result is delivered to a duplicate's waiter while the block runs."""
        first = await self.original_of(ticket)
        if first.key == ticket.key:
            yield ticket
            return
        row = self._view.get(first.key)
        if row is None or row["state"] == "expired":
            raise Gone(
                f"the result of {first.text}, the first task with this Idempotency-Key, is no longer stored"
            ).with_task(first.text)
        bringing = asyncio.create_task(self._deliver_original(first, waiter), name=f"duplicate-{first.text}")
        try:
            yield first
        finally:
            bringing.cancel()

    async def _deliver_original(self, first: Ticket, waiter: Waiter) -> None:
        row = await self._view.wait_until(
            first.key, lambda found: found["state"] in TERMINAL, seconds=timeout_s_of(first.deadline_ms)
        )
        if row is None or row["result_offset"] is None:
            return
        while True:
            try:
                result = await self._stored_result(first, row)
            except Unavailable as error:
                log.warning(
                    "cannot read the result of %s for a duplicate: %s",
                    first.text,
                    error,
                    extra={"event": "duplicate_lookup_failed", "task_id": first.text},
                )
                await asyncio.sleep(RETRY_S)
            else:
                break
        if result is not None:
            waiter.on_result(result)

    async def _stored_result(self, ticket: Ticket, row: Status) -> Result | None:
        """Read the result that a row refers to; raises Unavailable."""
        if row["result_offset"] is None:
            return None
        tp = TopicPartition(self._settings.topic(topics.results(ticket.id.level)), ticket.id.partition)
        return result_of(await self._log_reader.read(tp, row["result_offset"]), ticket.text)
