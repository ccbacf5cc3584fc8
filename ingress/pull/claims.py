"""Lease tasks to pull workers: propose claims, and read from the status rows which of them the scheduler accepted.

A task is handed out only after its row names the claim, so two workers never have the same attempt, whichever ingresses
they called.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Iterable, Sequence

from aiokafka import TopicPartition

from core.clock import epoch_ms
from core.errors import Unavailable
from core.kafka.log_reader import LogReader
from core.kafka.offsets import LATEST
from core.kafka.producer import Producer
from core.settings.models import Settings
from core.upstream_errors import reason_in
from ingress.pull.strategies import TakeRequest, lease_ms
from ingress.read_model.task_view import TaskView
from schemas import topics
from schemas.common import Blob, Usage
from schemas.events import lease_claim, lease_outcome, lease_release
from schemas.records import PULL_WORKER, Outcome, Status

log = logging.getLogger(__name__)

WORKER_ERROR = "worker_error"
"""Error code of an outcome that a worker reported with a status of 400 or more."""


def reported(
    status_code: int,
    *,
    body: bytes | None,
    body_ref: Blob | None,
    content_type: str,
    started_ms: int,
    usage: Usage | None = None,
) -> Outcome:
    """Build the outcome that a worker reports, a success below 400. It is final: the worker decides on retries."""
    bad = status_code >= 400
    reason = reason_in(body, content_type) if bad else None
    return {
        "status_code": status_code,
        "body": body,
        "body_ref": body_ref,
        "content_type": content_type,
        "error_code": WORKER_ERROR if bad else None,
        "error_message": f"the worker reported {status_code}" + (f": {reason}" if reason else "") if bad else None,
        "retriable": False,
        "retry_after_ms": None,
        "upstream": None,
        "chunks": 0,
        "usage": usage,
        "started_ms": started_ms,
        "first_token_ms": None,
    }


def lost_body(*, started_ms: int) -> Outcome:
    """Build the outcome of a task that cannot be handed out because its body is missing."""
    outcome = reported(500, body=None, body_ref=None, content_type="application/json", started_ms=started_ms)
    return {**outcome, "error_code": "body_missing", "error_message": "the stored request body cannot be used"}


READ_S = 3.0
DECISION_TIMEOUT_S = 5.0
"""A row follows its claim within milliseconds, unless the scheduler is behind; an undecided task is then released.

A much shorter time would starve workers under load: every claim would be released before the scheduler reads it."""


class PullClaims:
    """Claims on behalf of the workers that call this ingress."""

    def __init__(
        self, settings: Settings, *, name: str, producer: Producer, view: TaskView, log_reader: LogReader
    ) -> None:
        self._settings = settings
        self._prefix = settings.kafka.topic_prefix
        self._producer = producer
        self._view = view
        self._log_reader = log_reader
        self._name = f"{PULL_WORKER}{name}-{secrets.token_hex(3)}"
        self._takes = itertools.count(1)

    async def claim(self, rows: Sequence[Status], order: TakeRequest) -> list[Status]:
        """Claim tasks and return the rows of those that were leased; raises Unavailable."""
        worker = f"{self._name}/{next(self._takes)}"  # unique per take, so that the row names the take whose claim won
        now_ms = epoch_ms()
        await self._producer.send_all(
            [
                lease_claim(
                    self._prefix,
                    row,
                    worker=worker,
                    lease_ms=lease_ms(order, row, now_ms=now_ms),
                    retries=order.retries,
                    at_ms=now_ms,
                )
                for row in rows
            ]
        )
        decided = await asyncio.gather(*(self._await_decision(row, worker) for row in rows))
        return [row for row in decided if row is not None]

    async def release(self, held: Sequence[Status]) -> None:
        """Release leased tasks; when the write fails they are requeued at the end of the lease."""
        if not held:
            return
        now_ms = epoch_ms()
        try:
            await self._producer.send_all([lease_release(self._prefix, row, at_ms=now_ms) for row in held])
        except Unavailable as error:
            log.warning("cannot release %d leased tasks: %s", len(held), error, extra={"event": "pull_release_failed"})

    async def finish(self, row: Status, outcome: Outcome) -> Status | None:
        """Report the outcome of a leased task and return its row after the scheduler decided; raises Unavailable."""
        await self._producer.send(*lease_outcome(self._prefix, row, outcome, at_ms=epoch_ms()))
        return await self._view.wait_until(
            row["id"].encode(),
            lambda found: found["attempt"] != row["attempt"] or found["state"] != "processing",
            seconds=DECISION_TIMEOUT_S,
        )

    async def read_all(self, level: int, partitions: Iterable[int]) -> None:
        """Return when the read model has read every row that these partitions hold now; raises Unavailable."""
        tps = [TopicPartition(self._settings.topic(topics.status(level)), partition) for partition in partitions]
        try:
            async with asyncio.timeout(READ_S):
                ends = await asyncio.gather(*(self._log_reader.offset_at(tp, LATEST) for tp in tps))
                for tp, end in zip(tps, ends, strict=True):
                    if end:
                        await self._view.wait_for_offset(tp, end - 1)
        except TimeoutError as error:
            raise Unavailable(f"the read model is more than {READ_S:g} s behind; try again in some seconds") from error

    async def _await_decision(self, row: Status, worker: str) -> Status | None:
        """Return the row once it names this claim; None when another claim won."""
        found = await self._view.wait_until(
            row["id"].encode(),
            lambda now: now["attempt"] != row["attempt"] or now["state"] != "queued",
            seconds=DECISION_TIMEOUT_S,
        )
        if found is None or found["attempt"] != row["attempt"]:
            return None
        if found["state"] == "queued":  # still undecided: release it, so that no worker is assumed to run it
            await self.release([{**row, "worker": worker}])
            return None
        return found if found["state"] == "processing" and found["worker"] == worker else None
