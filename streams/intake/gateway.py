"""The Kafka door as the scheduler uses it: reads a record, sees to what its task needs, and lets it in or not."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from core.errors import DeliveryFailed, RequestError, Unavailable
from core.kafka.producer import Producer, Record
from core.kafka.record_signature import RecordSigner
from core.queues import QueueDirectory
from core.settings.callback_policy import callback_policy
from core.settings.loader import is_loopback
from core.settings.models import Settings
from core.tenants import Tenants
from schemas.headers import find
from schemas.partitioning import FORWARDED, direct_partition
from streams.intake.decode import InvalidRecord, Submission, in_queue, read_task, timestamp_ms
from streams.intake.quota import Quotas
from streams.intake.reply_topics import ReplyTopics
from streams.intake.trust import TrustPolicy
from streams.transaction import Transaction

KNOWN_S = 2.0
NEW_S = 0.5
"""A producer may write to a queue that was registered a moment ago, before that record is read here."""
NEW_EVERY_S = 5.0
"""So often at most the lane waits for one: names that nobody registers must not slow it down."""
POLL_S = 0.02


def trust_policy_from(settings: Settings, tenants: Tenants | None = None) -> TrustPolicy:
    """Return what the settings allow direct producers."""
    direct = settings.direct
    tenants = tenants or Tenants(settings)
    open_to_all = direct.allowed_tenants is None and is_loopback(settings.ingress.host)
    return TrustPolicy(
        owner=direct.default_tenant or None,
        owners=None if open_to_all else frozenset(direct.allowed_tenants or ()),
        tenants=tenants.known,
        callbacks=callback_policy(settings),
        reply_topics=tuple(direct.reply_topics),
        prefix=settings.kafka.topic_prefix,
        now_ms=lambda: time.time_ns() // 1_000_000,
        stamped=RecordSigner(settings).verify,
    )


class TaskIntake:
    """The way from a record of tasks.LEVEL to a task of the fold."""

    def __init__(self, settings: Settings, level: int, *, producer: Producer, queues: QueueDirectory) -> None:
        self._settings = settings
        self._level = level
        self._producer = producer
        self._queues = queues
        tenants = Tenants(settings)
        self._believed = trust_policy_from(settings, tenants)
        self._quotas = Quotas(tenants.tasks_per_minute) if tenants.limited else None
        self._refused: dict[str, str] = {}
        self._waited_at = -math.inf
        self.replies = ReplyTopics(settings, name="replies")

    def read(self, message: Any) -> Submission | InvalidRecord:
        """Read and judge a record."""
        most = self._settings.kafka.max_message_bytes
        return read_task(message, level=self._level, max_bytes=most, believed=self._believed)

    async def prepare(self, decoded: Iterable[object]) -> None:
        """Register queues that nobody has named before, and look for reply topics; raises DeliveryFailed."""
        tasks = [one for one in decoded if isinstance(one, Submission)]
        replies = {one.task["reply_topic"] for one in tasks}
        new = {one.task["queue"]: one for one in tasks if self._queues.get(one.task["queue"]) is None}
        self._refused.clear()
        try:
            await self.replies.look(name for name in replies if name is not None)
            for name, first in new.items():
                await self._register(name, first)
        except Unavailable as error:
            raise DeliveryFailed(f"what a batch of tasks needs could not be made: {error}") from error

    def admit(
        self, one: Submission, message: Any, fold: Transaction, *, now_ms: int
    ) -> Submission | InvalidRecord | None:
        """Say whether a task is folded here; None: it was written anew, where the twins of its key live."""
        queue = self._queues.get(one.task["queue"])
        admitted = in_queue(one, queue)
        if queue is None:
            reason = self._refused.get(one.task["queue"])
            return InvalidRecord(reason, "queue") if reason else admitted
        if not one.direct:
            return admitted
        if (refusal := self._refusal(one, message, fold)) is not None:
            return refusal
        home = self._owner_partition(one, message, width=queue["width"])
        if home == message.partition:
            return self._one_too_many(one, message, fold, now_ms=now_ms) or admitted
        came = (FORWARDED, b"%d/%d" % (message.partition, message.offset))
        record = Record(message.key, message.value, [*(message.headers or ()), came], timestamp_ms(message))
        fold.records[message.topic, home].append(record)
        fold.notes["forwarded"] += 1
        return None

    def _refusal(self, one: Submission, message: Any, fold: Transaction) -> InvalidRecord | None:
        reply = one.task["reply_topic"]
        if reply is not None and not self.replies.partitions(reply):
            return InvalidRecord(f"there is no topic {reply[:80]}", "reply_topic")
        if fold.taken(message.partition, one.task_id, message.offset):
            return InvalidRecord(f"the id {one.task_id} is taken by another task", "id")
        return None

    def _one_too_many(self, one: Submission, message: Any, fold: Transaction, *, now_ms: int) -> InvalidRecord | None:
        """Count a task of a direct producer; one that has its row already is read again after a crash, and is not."""
        if self._quotas is None or fold.knows(message.partition, one.task_id):
            return None
        reason = self._quotas.refusal(one.task["owner"], now_s=now_ms / 1000)
        if reason is None:
            return None
        fold.notes["over_quota"] += 1
        return InvalidRecord(reason, "owner" if find(message.headers or (), "x-owner") is None else "x-owner")

    async def reply(self, fold: Transaction) -> None:
        """Write the results of a batch to the topics that their tasks name; raises DeliveryFailed."""
        asked: dict[str, list[Record]] = defaultdict(list)
        for home, pending in fold.results.items():
            row = fold.rows.get(home)
            if pending.record is not None and row is not None and row["reply_topic"] is not None:
                asked[row["reply_topic"]].append(pending.record)
        if asked:
            fold.notes["reply_dropped"] += await self.replies.send(asked)

    def _owner_partition(self, one: Submission, message: Any, *, width: int) -> int:
        return direct_partition(
            one.task,
            partition=int(message.partition),
            key=message.key,
            headers=message.headers or (),
            width=width,
            partitions=self._settings.kafka.partitions,
        )

    async def _register(self, name: str, first: Submission) -> None:
        """Register a queue as the first task over HTTP does; a refusal is a reason for its dead letters."""
        if not self._settings.ingress.auto_register:
            if not first.direct:
                await self._until_known(name, KNOWN_S)
            elif time.monotonic() - self._waited_at >= NEW_EVERY_S:
                await self._until_known(name, NEW_S)
                self._waited_at = time.monotonic()
            return
        try:
            await self._queues.register(
                self._producer, name, endpoint=first.task["endpoint"], owner=first.task["owner"]
            )
        except RequestError as error:
            self._refused[name] = error.message

    async def _until_known(self, name: str, seconds: float) -> None:
        """Wait for the record of a queue that was registered just now: it lies in another topic."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    if self._queues.get(name) is not None:
                        return
                    await asyncio.sleep(POLL_S)
