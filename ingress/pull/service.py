"""Hand out tasks to pull workers: select from the read model, claim, and select others where another claim won."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack

from aiokafka import TopicPartition

from core.clock import epoch_ms
from core.errors import Unavailable
from core.kafka.log_reader import LogReader, LogRecord
from core.kafka.producer import Producer
from core.kafka.task_records import task_of
from core.settings.models import Settings
from core.storage.blobs import BlobCorrupt, BlobMissing, BlobStore
from ingress.pull.claims import PullClaims, lost_body
from ingress.pull.queue import QueueLevel
from ingress.pull.queue_index import IndexedQueue, PullIndex
from ingress.pull.strategies import LeasedTask, PickedTask, TakeRequest, allowed, pick
from ingress.read_model.task_view import TaskView
from schemas import ids, topics
from schemas.broken_lines import outcome_of
from schemas.records import Status

log = logging.getLogger(__name__)

TAKE_TIMEOUT_S = 0.8
"""How long a take starts new claims; the last claim may take DECISION_TIMEOUT_S of claims.py longer."""
SPREAD = 8
"""Choose at random among this many times the wanted tasks after another ingress won a claim; halved when none did."""
INDEX_WAIT_S = 0.1
NO_LIMIT_MS = 1 << 62


class PullService:
    """Serves the takes of one ingress."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        producer: Producer,
        view: TaskView,
        log_reader: LogReader,
        blobs: BlobStore,
    ) -> None:
        """`name` is the client id of this process, by which workers are named."""
        self.claims = PullClaims(settings, name=name, producer=producer, view=view, log_reader=log_reader)
        self._settings = settings
        self._view = view
        self._log_reader = log_reader
        self._blobs = blobs
        self._index: PullIndex | None = None  # created by the first call, because it reads every batch of rows
        self._reserved: set[str] = set()
        """Task ids that a take of this process is about to claim; concurrent takes skip them."""

    def watch(self, name: QueueLevel) -> IndexedQueue:
        """Return a queue and level as the read model shows it."""
        if self._index is None:
            self._index = PullIndex(self._view)
        return self._index.watch(name)

    async def take(self, order: TakeRequest) -> dict[QueueLevel, list[LeasedTask]]:
        """Return tasks leased to the caller, fewer than requested where fewer wait.

        Raises Unavailable when nothing could be claimed because Kafka does not answer.
        """
        queues = {name: self.watch(name) for name in order.queues}
        async with AsyncExitStack() as turns:
            if order.strategy == "sequential":
                queues = {name: one for name, one in queues.items() if not one.turn.locked()}
                for queue in queues.values():
                    await turns.enter_async_context(queue.turn)
            held = await self._lease(order, queues)
        found = await asyncio.gather(*(self._with_body(row) for row in held))
        taken: dict[QueueLevel, list[LeasedTask]] = {}
        for one in sorted((one for one in found if one is not None), key=lambda one: one.row["created_ms"]):
            taken.setdefault(QueueLevel(one.row["queue"], one.row["level"]), []).append(one)
        return taken

    async def _lease(self, order: TakeRequest, queues: Mapping[QueueLevel, IndexedQueue]) -> list[Status]:
        """Claim until enough tasks are leased, none is left, or the time is over."""
        until = time.monotonic() + TAKE_TIMEOUT_S
        wanted, held, tried = allowed(order.strategy, order.size), list[Status](), set[str]()
        while len(held) < wanted and (left_s := until - time.monotonic()) > 0:
            picks = self._pick(order, queues, wanted - len(held), tried)
            if not picks:
                if not await _wait_for_scan(queues.values(), left_s):
                    break
                continue
            tried |= {one.task.id for one in picks}
            try:
                won = await self._claim(order, picks, queues)
            except Unavailable:
                if held:
                    break
                raise
            for name in {one.queue_level for one in picks}:
                queues[name].spread = SPREAD if len(won) < len(picks) else max(1, queues[name].spread // 2)
            held += won
        return held

    def _pick(
        self, order: TakeRequest, queues: Mapping[QueueLevel, IndexedQueue], count: int, tried: set[str]
    ) -> list[PickedTask]:
        before_ms = epoch_ms() - order.min_age_ms if order.min_age_ms else NO_LIMIT_MS
        waiting = {}
        for name, queue in queues.items():
            if order.strategy == "sequential" and (queue.queue.held or not queue.scan.complete.is_set()):
                continue
            spread = 1 if order.strategy == "sequential" else queue.spread
            few = 1 if order.strategy == "sequential" else count * spread
            oldest = queue.queue.oldest(few, before_ms=before_ms, skip=tried | self._reserved)
            some = oldest if spread == 1 else random.sample(oldest, min(count, len(oldest)))
            waiting[name] = sorted(some)
        return pick(order.strategy, waiting, count)

    async def _claim(
        self, order: TakeRequest, picks: Sequence[PickedTask], queues: Mapping[QueueLevel, IndexedQueue]
    ) -> list[Status]:
        chosen = {one.task.id for one in picks}
        self._reserved |= chosen
        try:
            now_ms = epoch_ms()
            rows = [row for one in picks if (row := self._view.get(one.task.id.encode())) is not None]
            rows = [
                row
                for row in rows
                if row["state"] == "queued" and row["not_before_ms"] is None and row["deadline_ms"] > now_ms
            ]
            won = await self.claims.claim(rows, order) if rows else []
            if order.strategy == "sequential":
                won = [row for row in won if await self._claim_exclusive(row, queues)]
            return won
        finally:
            self._reserved -= chosen

    async def _claim_exclusive(self, row: Status, queues: Mapping[QueueLevel, IndexedQueue]) -> bool:
        """Return whether no other task of the queue is leased; else release this one.

        Each of two takers first has its claim accepted and then reads every row, so at least one of them sees the
        other, whichever ingresses they called.
        """
        queue = queues[QueueLevel(row["queue"], row["level"])]
        try:
            await self.claims.read_all(row["level"], range(self._settings.kafka.partitions))
        except Unavailable as error:
            log.warning("cannot check the leases of %s: %s", queue.name, error, extra={"event": "pull_claim_unknown"})
        else:
            if queue.queue.held <= {row["id"]}:
                return True
        await self.claims.release([row])
        return False

    async def _with_body(self, row: Status) -> LeasedTask | None:
        """Add the body; a task whose body is missing fails."""
        tp = TopicPartition(self._settings.topic(topics.tasks(row["level"])), ids.parse(row["id"]).partition)
        try:
            data = await self._body(row["id"], await self._log_reader.read(tp, row["source_offset"]))
            if data is None:
                await self.claims.finish(row, lost_body(started_ms=row["started_ms"] or epoch_ms()))
                return None
            broken = outcome_of(row["content_type"], data, started_ms=row["started_ms"] or epoch_ms())
            if broken is not None:
                await self.claims.finish(row, broken)
                return None
        except Unavailable as error:
            log.warning(
                "cannot read the body of %s: %s",
                row["id"],
                error,
                extra={"event": "pull_body_missing", "task_id": row["id"]},
            )
            await self.claims.release([row])
            return None
        return LeasedTask(row, data)

    async def _body(self, task_id: str, found: LogRecord | None) -> bytes | str | None:
        try:
            task = task_of(found, task_id)
            if task is None:
                return None
            return task["data"] if task["data_ref"] is None else await self._blobs.get(task["data_ref"])
        except (BlobMissing, BlobCorrupt):
            return None


async def _wait_for_scan(queues: Iterable[IndexedQueue], left_s: float) -> bool:
    """Wait for queues whose rows are still being read; return whether there are any."""
    unread = [one for one in queues if not one.scan.complete.is_set()]
    if not unread:
        return False
    await unread[0].counted(min(left_s, INDEX_WAIT_S))
    return True
