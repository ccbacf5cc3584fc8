"""Compensating cancels: a task whose write was not confirmed was refused to its client, so it is cancelled later.

A module of its own: it outlives the requests and is closed at shutdown before the producer.
"""

from __future__ import annotations

import asyncio
import logging

from core.errors import Unavailable
from ingress.submission.submitter import Submitter, Ticket

log = logging.getLogger(__name__)

RETRY_S = 0.5
MAX_PENDING = 10_000


class CompensatingCancels:
    """Cancels tasks in the background, retrying until Kafka confirms the cancel.

    Best effort: a process that stops before Kafka is back forgets them, and a short task may have ended by then. The
    client has the id and can get the status.
    """

    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, ticket: Ticket) -> None:
        """Cancel a task as soon as that is possible."""
        if len(self._tasks) < MAX_PENDING:
            task = asyncio.create_task(self._cancel(ticket), name=f"cancel-{ticket.text}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop retrying."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _cancel(self, ticket: Ticket) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            try:
                await self._submitter.cancel(
                    ticket.id,
                    owner=ticket.owner,
                    reason="its write was not confirmed, and its client received an error",
                )
                break
            except Unavailable:
                continue
        log.info(
            "cancelled task %s, whose write was not confirmed",
            ticket.text,
            extra={"event": "unconfirmed_task_cancelled", "task_id": ticket.text},
        )
