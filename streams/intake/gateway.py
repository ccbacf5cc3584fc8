"""Admission of task records: queues, quotas, reply topics and routing by idempotency key.

Task records are written by the ingress or directly by producers; the trust rules of the latter are in trust.py.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from core.clock import epoch_ms
from core.errors import DeliveryFailed, RequestError, Unavailable
from core.kafka.producer import Producer, Record
from core.kafka.record_signature import RecordSigner
from core.queues import QueueDirectory
from core.settings.callback_policy import callback_policy
from core.settings.loader import is_loopback
from core.settings.models import Settings
from core.tenants import Tenants
from core.token_bucket import TokenBucket
from schemas.headers import find
from schemas.partitioning import FORWARDED, direct_partition
from streams.intake.decode import InvalidRecord, Submission, read_task, timestamp_ms, with_queue_defaults
from streams.intake.reply_topics import ReplyTopics
from streams.intake.trust import TrustPolicy
from streams.transaction import Transaction

REGISTRATION_TIMEOUT_S = 2.0
NEW_QUEUE_TIMEOUT_S = 0.5
"""Wait for a queue that a direct task names and that may have been registered a moment ago in another topic."""
NEW_QUEUE_INTERVAL_S = 5.0
"""Minimum time between two such waits, so that unknown queue names cannot slow down the level."""
POLL_S = 0.02
MAX_TENANTS = 10_000
"""Token buckets in memory (2 MB): direct records may name a new tenant each."""


def trust_policy_from(settings: Settings, tenants: Tenants | None = None) -> TrustPolicy:
    """Return the trust policy of the settings for direct producers."""
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
        now_ms=epoch_ms,
        is_signed=RecordSigner(settings).verify,
    )


class Quotas:
    """Tasks per minute of each tenant with a limit; the caller provides the clock.

    Counted per scheduler process, as the HTTP API counts per ingress: a restart resets the counts, and each scheduler
    of a level admits up to the limit for its own partitions.
    """

    def __init__(self, limit_of: Callable[[str | None], int]) -> None:
        """`limit_of` returns the current limit of a tenant, 0 for none."""
        self._limit_of = limit_of
        self._buckets: dict[str | None, TokenBucket] = {}

    def check(self, tenant: str | None, *, now_s: float) -> str | None:
        """Count one task; returns the reason if it exceeds the limit."""
        limit = self._limit_of(tenant)
        if not limit:
            return None
        bucket = self._buckets.get(tenant)
        if bucket is None or bucket.limit != limit:
            if len(self._buckets) >= MAX_TENANTS:
                self._buckets.clear()
            bucket = self._buckets[tenant] = TokenBucket(limit, now_s=now_s)
        if not bucket.take(now_s):
            return None
        name = "records without a tenant" if tenant is None else tenant
        return f"the limit of {limit} tasks per minute for {name} is exceeded (direct.tasks_per_minute)"


class TaskIntake:
    """Turns records of tasks.LEVEL into tasks of a transaction."""

    def __init__(self, settings: Settings, level: int, *, producer: Producer, queues: QueueDirectory) -> None:
        self._settings = settings
        self._level = level
        self._producer = producer
        self._queues = queues
        tenants = Tenants(settings)
        self._trust = trust_policy_from(settings, tenants)
        self._quotas = Quotas(tenants.tasks_per_minute) if tenants.limited else None
        self._rejected: dict[str, str] = {}
        self._waited_at = -math.inf
        self.reply_topics = ReplyTopics(settings, name="replies")

    def read(self, message: Any) -> Submission | InvalidRecord:
        """Decode and validate a record."""
        max_bytes = self._settings.kafka.max_message_bytes
        return read_task(message, level=self._level, max_bytes=max_bytes, trust=self._trust)

    async def prepare(self, decoded: Iterable[object]) -> None:
        """Register new queues and refresh the reply topics of a batch; raises DeliveryFailed."""
        tasks = [one for one in decoded if isinstance(one, Submission)]
        reply_topics = {one.task["reply_topic"] for one in tasks}
        new = {one.task["queue"]: one for one in tasks if self._queues.get(one.task["queue"]) is None}
        self._rejected.clear()
        try:
            await self.reply_topics.refresh(name for name in reply_topics if name is not None)
            for name, first in new.items():
                await self._register(name, first)
        except Unavailable as error:
            raise DeliveryFailed(
                f"cannot register the queues or look up the reply topics of a batch: {error}"
            ) from error

    def admit(
        self, one: Submission, message: Any, transaction: Transaction, *, now_ms: int
    ) -> Submission | InvalidRecord | None:
        """Decide whether this partition processes a task; None: it was forwarded to the partition that owns its key."""
        queue = self._queues.get(one.task["queue"])
        admitted = with_queue_defaults(one, queue)
        if queue is None:
            reason = self._rejected.get(one.task["queue"])
            return InvalidRecord(reason, "queue") if reason else admitted
        if not one.direct:
            return admitted
        if (invalid := self._invalid(one, message, transaction)) is not None:
            return invalid
        owner = self._owner_partition(one, message, width=queue["width"])
        if owner == message.partition:
            return self._over_quota(one, message, transaction, now_ms=now_ms) or admitted
        came = (FORWARDED, b"%d/%d" % (message.partition, message.offset))
        record = Record(message.key, message.value, [*(message.headers or ()), came], timestamp_ms(message))
        transaction.records[message.topic, owner].append(record)
        transaction.reasons["forwarded"] += 1
        return None

    def _invalid(self, one: Submission, message: Any, transaction: Transaction) -> InvalidRecord | None:
        reply = one.task["reply_topic"]
        if reply is not None and not self.reply_topics.partition_count(reply):
            return InvalidRecord(f"the reply topic {reply[:80]} does not exist", "reply_topic")
        if transaction.id_in_use(message.partition, one.task_id, message.offset):
            return InvalidRecord(f"the id {one.task_id} is in use by another task", "id")
        return None

    def _over_quota(
        self, one: Submission, message: Any, transaction: Transaction, *, now_ms: int
    ) -> InvalidRecord | None:
        """Count a direct task; one that already has a state record is being read again after a crash."""
        if self._quotas is None or transaction.has_task(message.partition, one.task_id):
            return None
        reason = self._quotas.check(one.task["owner"], now_s=now_ms / 1000)
        if reason is None:
            return None
        transaction.reasons["over_quota"] += 1
        return InvalidRecord(reason, "owner" if find(message.headers or (), "x-owner") is None else "x-owner")

    async def reply(self, transaction: Transaction) -> None:
        """Write the results of a batch to the reply topics of their tasks; raises DeliveryFailed."""
        replies: dict[str, list[Record]] = defaultdict(list)
        for key, pending in transaction.results.items():
            row = transaction.rows.get(key)
            if pending.record is not None and row is not None and row["reply_topic"] is not None:
                replies[row["reply_topic"]].append(pending.record)
        if replies:
            transaction.reasons["reply_failed"] += await self.reply_topics.send(replies)

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
        """Register a queue, as the first task over HTTP does; a refusal becomes the reason of its dead letters."""
        if not self._settings.ingress.auto_register:
            if not first.direct:
                await self._wait_until_registered(name, REGISTRATION_TIMEOUT_S)
            elif time.monotonic() - self._waited_at >= NEW_QUEUE_INTERVAL_S:
                await self._wait_until_registered(name, NEW_QUEUE_TIMEOUT_S)
                self._waited_at = time.monotonic()
            return
        try:
            await self._queues.register(
                self._producer, name, endpoint=first.task["endpoint"], owner=first.task["owner"]
            )
        except RequestError as error:
            self._rejected[name] = error.message

    async def _wait_until_registered(self, name: str, seconds: float) -> None:
        """Wait for the record of a queue that was just registered: it is in another topic."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    if self._queues.get(name) is not None:
                        return
                    await asyncio.sleep(POLL_S)
