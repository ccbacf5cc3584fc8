"""Attempts that are in the event log already: their work records are duplicates, whatever the committed offsets are.

Committed offsets can lag behind by many seconds, for example when a commit hung before a kill -9; the next owner of the
partition then receives work that was done. The events topics are exact: a claim, an outcome or a return is there as
soon as it is durable. So a consumer with newly assigned partitions reads the events since the first record that it
received from them, before it runs any of it (docs/contributing/decisions/0016).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from core.bounded_set import BoundedSet
from core.clock import Clock, epoch_ms
from core.errors import Unavailable
from core.kafka.log_reader import LogReader, LogRecord
from core.kafka.offsets import LATEST
from core.retry import retry_unavailable
from core.settings.models import Settings
from dispatcher.inference.concurrency import Draining
from dispatcher.inference.work_item import Key
from schemas import topics
from schemas.headers import TYPE
from schemas.records import PULL_WORKER

log = logging.getLogger(__name__)

KINDS = frozenset(TYPE + kind for kind in (b"claimed", b"finished", b"released", b"progress"))
MARGIN_MS = 10_000
"""Maximum difference between the clocks of schedulers and dispatchers."""
LOOKBACK_MS = 120_000
"""Maximum lookback: records of a backlog may be older, and without Kafka no work is received for so long."""
TTL_S = 300.0
"""How long loaded attempts stay in memory, seconds; a worker busy with long calls receives duplicates late."""
GENERATION_SIZE = 100_000
"""Attempts in each of two generations, about 100 bytes each; enough for two minutes of 1,500 tasks a second."""
RETRY_DELAY_S = 0.5
PULL = PULL_WORKER.encode()
MAX_PREFIX_BYTES = 8
"""Maximum bytes between a task's id and its worker's name: the attempt, the union branch, the length."""
Positions = dict[int, int]
"""Partition → offset of the next event to read."""
Read = Callable[[int, Positions, Callable[[bytes], None]], Awaitable[None]]
"""Read the events since a time, or from the positions, up to the present end, and advance the positions; raises
Unavailable, and may be called again then."""
READ_TIMEOUT_S = 10.0
"""Timeout of one read; the next one continues from the positions."""


def attempt_of(record: LogRecord) -> bytes | None:
    """Return the attempt that a dispatcher reports, rendered as `key_of` does; None for every other event.

    Nothing is decoded: the headers and the place of the worker's name suffice. Events of the ingress for pull workers
    do not count, because the scheduler may reject them.
    """
    kind = attempt = None
    for name, value in record.headers:
        if name == "ce_type":
            kind = value
        elif name == "x-attempt":
            attempt = value
    if kind not in KINDS or attempt is None or not record.key:
        return None
    body = record.value or b""
    worker = body.find(record.key) + len(record.key)
    if body.find(PULL, worker, worker + MAX_PREFIX_BYTES + len(PULL)) >= 0:
        return None
    return b"%b/%b" % (record.key, attempt)


def key_of(key: Key) -> bytes:
    """Render a task id and its attempt."""
    task_id, attempt = key
    return f"{task_id}/{attempt}".encode()


class LevelIndex:
    """The seen attempts of one level. Calls during a read are served by the next read, all together."""

    def __init__(self, read: Read, *, ttl_s: float = TTL_S) -> None:
        self.keys: BoundedSet[bytes] = BoundedSet(at_least=GENERATION_SIZE)
        self._read = read
        self._ttl_s = ttl_s
        self._since_ms: float = math.inf
        self._loaded_at = -math.inf
        self._wanted_ms: float = math.inf
        self._positions: Positions = {}
        self._loading: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._closed = False

    async def ensure_loaded(self, since_ms: int, *, after: float) -> None:
        """Return when the events since a time are loaded, up to a moment after `after` on the monotonic clock.

        Waits while Kafka is unavailable; raises Draining when the process stops.
        """
        while not self._closed and not (self._since_ms <= since_ms and self._loaded_at >= after):
            self._wanted_ms = min(self._wanted_ms, since_ms)
            if self._loading is None:
                self._loading = asyncio.create_task(self._load(), name="load-seen-attempts")
            loading = self._loading
            await asyncio.wait({loading})  # the caller may be cancelled; the read continues for the others
            if not self._closed:
                loading.result()
        if self._closed:
            raise Draining

    async def close(self) -> None:
        """Stop reading, and reject all waiting calls."""
        self._closed = True
        if self._expiry is not None:
            self._expiry.cancel()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)

    async def _load(self) -> None:
        wanted_ms, self._wanted_ms = self._wanted_ms, math.inf
        if wanted_ms < self._since_ms:
            self._positions = {}
        since_ms = min(wanted_ms, self._since_ms)
        began = time.monotonic()
        try:
            await retry_unavailable(
                lambda: self._read(int(since_ms), self._positions, self.keys.add), delay_s=RETRY_DELAY_S
            )
            self._since_ms, self._loaded_at = since_ms, began
        finally:
            self._loading = None
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(self._ttl_s, self._expire)
        took_ms = round((time.monotonic() - began) * 1000)
        log.info(
            "loaded %d seen attempts in %d ms",
            len(self.keys),
            took_ms,
            extra={"event": "seen_attempts_loaded", "count": len(self.keys), "took_ms": took_ms},
        )

    def _expire(self) -> None:
        if self._loading is None:
            self._since_ms = math.inf
            self._positions = {}
            self.keys.clear()


class SeenAttempts:
    """The seen attempts of both levels."""

    def __init__(self, levels: list[LevelIndex], *, clock: Clock = epoch_ms) -> None:
        self._levels = levels
        self._clock = clock

    def __contains__(self, key: Key) -> bool:
        rendered = key_of(key)
        return any(rendered in level.keys for level in self._levels)

    async def ensure_loaded(self, level: int, *, oldest_ms: int, assigned_ms: int, assigned_at: float) -> None:
        """Return when the events about records of this age, from partitions assigned then, are loaded.

        Work that was written after the assignment cannot have been received by another worker.
        """
        if oldest_ms - MARGIN_MS > assigned_ms:
            return
        since_ms = max(oldest_ms - MARGIN_MS, self._clock() - LOOKBACK_MS)
        await self._levels[level].ensure_loaded(since_ms, after=assigned_at)

    async def close(self) -> None:
        """Reject all waiting calls."""
        await asyncio.gather(*(level.close() for level in self._levels))


class AttemptEventReader:
    """Reads the events topics of both levels, all partitions concurrently."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._settings = settings
        self._log_reader = LogReader(settings, name=f"{name}-attempts")

    async def open(self) -> None:
        """Connect; raises Unavailable."""
        await self._log_reader.open_with_retry([self._topic(level) for level in range(len(topics.LEVELS))])

    async def close(self) -> None:
        """Disconnect."""
        await self._log_reader.close()

    async def read(self, level: int, since_ms: int, positions: Positions, add: Callable[[bytes], None]) -> None:
        """Add every reported attempt up to the present end of the log; raises Unavailable."""
        tps = [TopicPartition(self._topic(level), partition) for partition in range(self._settings.kafka.partitions)]
        try:
            async with asyncio.timeout(READ_TIMEOUT_S), asyncio.TaskGroup() as group:
                for tp in tps:
                    group.create_task(self._partition(tp, since_ms, positions, add))
        except* (TimeoutError, KafkaError, OSError, Unavailable) as errors:
            log.warning("cannot read the attempt log: %s", errors, extra={"event": "attempt_log_read_failed"})
            raise Unavailable from errors

    async def _partition(
        self, tp: TopicPartition, since_ms: int, positions: Positions, add: Callable[[bytes], None]
    ) -> None:
        end = await self._log_reader.offset_at(tp, LATEST) or 0
        if tp.partition not in positions:
            first = await self._log_reader.offset_at(tp, since_ms)
            positions[tp.partition] = end if first is None else min(first, end)
        async for record in self._log_reader.read_range(tp, positions[tp.partition], end):
            attempt = attempt_of(record)
            if attempt is not None:
                add(attempt)
            positions[tp.partition] = record.offset + 1

    def _topic(self, level: int) -> str:
        return self._settings.topic(topics.events(level))
