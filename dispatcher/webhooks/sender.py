"""The callback sender: posts the outcome of every task that named a callback, at least once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from core.blobs import BlobCorrupt, BlobMissing, BlobStore
from core.config import is_loopback
from core.errors import Unavailable
from core.kafka.deadletters import bury
from core.kafka.producer import Producer
from core.settings import Settings
from dispatcher import metrics
from dispatcher.clock import Deadline
from dispatcher.crew import Crew
from dispatcher.reader import GroupReader, Taken
from dispatcher.webhooks.hosts import HostSlots
from dispatcher.webhooks.payload import payload
from dispatcher.webhooks.post import Answer, Poster, Verdict
from schemas import topics
from schemas.codec import RESULT, SchemaError
from schemas.framing import FramingError
from schemas.records import Result

log = logging.getLogger(__name__)

GROUP = "webhooks"
TAKE = 100
PENDING_RECORDS = 1000
PENDING_BYTES = 67_108_864
"""How much may be taken and not over: what one dead host can pile up before the reading waits for it."""
HOST_SHARE = 4
"""One host gets at most this fraction of all deliveries at once."""
BURY_RETRY_S = 0.5


class Sender:
    """Read results as a consumer group and deliver; an offset is committed only when its attempts are over."""

    def __init__(self, settings: Settings, *, name: str, crew: Crew, producer: Producer, blobs: BlobStore) -> None:
        self._settings = settings
        self._crew = crew
        self._producer = producer
        self._blobs = blobs
        hooks = settings.webhooks
        allowed = hooks.allow_private if hooks.allow_private is not None else is_loopback(settings.ingress.host)
        self._poster = Poster(allow_private=allowed, timeout_s=hooks.timeout_s, concurrency=hooks.concurrency)
        self._hosts = HostSlots(max(1, hooks.concurrency // HOST_SHARE))
        self._slots = asyncio.Semaphore(hooks.concurrency)
        self._reader = GroupReader(
            settings,
            name=name,
            group=settings.topic(GROUP),
            topics=[settings.topic(topics.results(level)) for level in range(len(topics.LEVELS))],
            on_revoke=self._revoked,
        )
        self._pending: dict[asyncio.Task[None], int] = {}
        self._less = asyncio.Event()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Begin to deliver."""
        self._tasks = [
            self._crew.spawn(self._run(), name="webhooks"),
            self._crew.spawn(self._commit(), name="webhooks-commit"),
        ]

    async def close(self, deadline: Deadline) -> None:
        """Finish what the deadline allows; the rest is delivered by another or after the restart."""
        self._stopping = True
        self._less.set()
        if self._tasks:
            await asyncio.wait(self._tasks[:1], timeout=deadline.left(1.0))
        if self._pending:
            await asyncio.wait(set(self._pending), timeout=max(0.0, deadline.left() - 1.0))
        for task in [*self._pending, *self._tasks]:
            task.cancel()
        await asyncio.gather(*self._pending, *self._tasks, return_exceptions=True)
        await self._reader.commit(deadline)
        await self._reader.close(deadline)
        await self._poster.close()

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Tell whether results are read."""
        joined = self._reader.assigned
        return joined, {"missing": [] if joined else ["the results are not read yet"], "pending": len(self._pending)}

    async def _run(self) -> None:
        while not self._stopping:
            room = PENDING_RECORDS - len(self._pending)
            if room <= 0 or sum(self._pending.values()) > PENDING_BYTES:
                self._less.clear()
                await self._less.wait()
                continue
            for taken in await self._reader.take(min(room, TAKE)):
                await self._begin(taken)

    async def _begin(self, taken: Taken) -> None:
        record = taken.record
        try:
            result = RESULT.decode(record.value or b"")
        except (FramingError, SchemaError) as error:
            await self._bury(taken, f"no result record: {error}", None)
            return
        if result["callback_url"] is None or result["mode"] == "batch":
            taken.claims.settled(record.offset)
            return
        task = asyncio.create_task(self._deliver(taken, result), name=f"callback-{result['id']}")
        self._pending[task] = len(record.value)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        del self._pending[task]
        self._less.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("callback", exc_info=error, extra={"event": "callback_crashed"})

    async def _deliver(self, taken: Taken, result: Result) -> None:
        url = result["callback_url"] or ""
        async with self._hosts.slot(urlsplit(url).netloc):
            answer = await self._attempts(url, result)
        metrics.DELIVERIES.labels(answer.verdict.value).inc()
        if answer.verdict is Verdict.DELIVERED:
            taken.claims.settled(taken.record.offset)
            return
        log.warning(
            "callback of %s is given up: %s", result["id"], answer.reason,
            extra={"event": "callback_given_up", "task_id": result["id"], "queue": result["queue"]},
        )  # fmt: skip
        await self._bury(taken, f"callback given up: {answer.reason}", "callback_url")

    async def _attempts(self, url: str, result: Result) -> Answer:
        answer = await self._once(url, result)
        for delay in self._settings.webhooks.retry_delays:
            if answer.verdict is not Verdict.AGAIN:
                break
            await asyncio.sleep(delay)
            answer = await self._once(url, result)
        return answer

    async def _once(self, url: str, result: Result) -> Answer:
        async with self._slots:
            try:
                rendered = payload(result, await self._body(result))
            except Unavailable as error:
                return Answer(Verdict.AGAIN, error.message)
            began = time.monotonic()
            try:
                return await self._poster.post(url, rendered)
            finally:
                metrics.DELIVERY_SECONDS.observe(time.monotonic() - began)

    async def _body(self, result: Result) -> bytes | None:
        if result["body_ref"] is None:
            return result["body"]
        try:
            return await self._blobs.get(result["body_ref"])
        except (BlobMissing, BlobCorrupt) as error:
            log.error("%s", error.message, extra={"event": "callback_body_lost", "task_id": result["id"]})
            return b'{"error":{"message":"the stored body is lost","type":"server_error","param":null,"code":"%b"}}' % (
                error.code.encode()
            )

    async def _bury(self, taken: Taken, reason: str, field: str | None) -> None:
        while True:
            try:
                await bury(self._producer, self._settings, taken.record, reason=reason, field=field)
            except Unavailable:
                await asyncio.sleep(BURY_RETRY_S)
            else:
                taken.claims.settled(taken.record.offset)
                return

    async def _commit(self) -> None:
        while True:
            await asyncio.sleep(self._settings.dispatcher.commit_interval_s)
            await self._reader.commit()

    async def _revoked(self) -> None:
        await self._reader.commit()
