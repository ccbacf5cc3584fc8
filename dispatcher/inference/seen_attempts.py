"""The attempts of which a worker has spoken in the log: their work records are repeats, whatever the offsets say.

Consumer offsets are a poor memory of what was done: a commit that hung while calls went on, and then a kill -9, and
whoever comes next is given the work of many seconds once more. The events topics are the good one: what a worker has
claimed, finished or given back stands there as soon as it is durable. So whoever is given partitions reads the events
since the first record that it finds in them, before it runs any of it (docs/contributing/decisions/0016).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

from core.bounded_set import BoundedSet
from core.clock import Clock, epoch_ms
from core.kafka.log_reader import LogRecord
from core.retry import retry_unavailable
from dispatcher.inference.slots import Draining
from dispatcher.inference.work_item import Key
from schemas.headers import TYPE
from schemas.records import PULL_WORKER

log = logging.getLogger(__name__)

KINDS = frozenset(TYPE + kind for kind in (b"claimed", b"finished", b"released", b"progress"))
MARGIN_MS = 10_000
"""How far the clocks of schedulers and dispatchers may differ."""
LOOKBACK_MS = 120_000
"""The longest look back: how old a backlog is tells nothing, and without Kafka no work is taken for so long."""
KEEP_S = 300.0
"""A worker that is full of long calls meets its repeats late."""
GENERATION_SIZE = 100_000
"""Attempts in each of the two halves that are kept, about 100 bytes each; two minutes of 1,500 tasks a second fit."""
RETRY_S = 0.5
PULL = PULL_WORKER.encode()
LEAD = 8
"""Most bytes between a task's id and its worker's name: the attempt, the branch, the length."""

Positions = dict[int, int]
"""Partition → offset of the event that is read next."""
Read = Callable[[int, Positions, Callable[[bytes], None]], Awaitable[None]]
"""Read the events since a time, or from where the positions are, up to the end as it is when it begins, and move the
positions; raises Unavailable, and may be called again then."""


def attempt_of(record: LogRecord) -> bytes | None:
    """Return the attempt that a dispatcher speaks of, rendered as `key_of` does; None for every other event.

    Nothing is decoded: the headers tell, and the place where the worker's name begins. What an ingress says for a pull
    worker does not count, for the scheduler may refuse it.
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
    if body.find(PULL, worker, worker + LEAD + len(PULL)) >= 0:
        return None
    return b"%b/%b" % (record.key, attempt)


def key_of(key: Key) -> bytes:
    """Render a task's attempt."""
    task_id, attempt = key
    return f"{task_id}/{attempt}".encode()


class LevelIndex:
    """What was heard of one level. Whoever asks while it is being read is served by the next reading, all together."""

    def __init__(self, read: Read, *, keep_s: float = KEEP_S) -> None:
        self.keys: BoundedSet[bytes] = BoundedSet(at_least=GENERATION_SIZE)
        self._read = read
        self._keep_s = keep_s
        self._since_ms: float = math.inf
        self._begun_at = -math.inf
        self._wanted_ms: float = math.inf
        self._positions: Positions = {}
        self._flight: asyncio.Task[None] | None = None
        self._forgetting: asyncio.TimerHandle | None = None
        self._closed = False

    async def heard(self, since_ms: int, *, after: float) -> None:
        """Return when what was said from a time on is known, up to a moment after `after`, by the monotonic clock.

        However long Kafka is away; raises Draining when the process stops.
        """
        while not self._closed and not (self._since_ms <= since_ms and self._begun_at >= after):
            self._wanted_ms = min(self._wanted_ms, since_ms)
            if self._flight is None:
                self._flight = asyncio.create_task(self._hear(), name="hear-events")
            flight = self._flight
            await asyncio.wait({flight})  # who asks may be cancelled, the reading goes on for the others
            if not self._closed:
                flight.result()
        if self._closed:
            raise Draining

    async def close(self) -> None:
        """Read no more, and send everybody away who waits."""
        self._closed = True
        if self._forgetting is not None:
            self._forgetting.cancel()
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)

    async def _hear(self) -> None:
        wanted_ms, self._wanted_ms = self._wanted_ms, math.inf
        if wanted_ms < self._since_ms:
            self._positions = {}
        since_ms = min(wanted_ms, self._since_ms)
        began = time.monotonic()
        try:
            await retry_unavailable(lambda: self._read(int(since_ms), self._positions, self.keys.add), delay_s=RETRY_S)
            self._since_ms, self._begun_at = since_ms, began
        finally:
            self._flight = None
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(self._keep_s, self._forget)
        took_ms = round((time.monotonic() - began) * 1000)
        log.info(
            "heard of %d attempts within %d ms",
            len(self.keys),
            took_ms,
            extra={"event": "spoken_heard", "count": len(self.keys), "took_ms": took_ms},
        )

    def _forget(self) -> None:
        if self._flight is None:
            self._since_ms = math.inf
            self._positions = {}
            self.keys.clear()


class SeenAttempts:
    """What was heard of both levels."""

    def __init__(self, levels: list[LevelIndex], *, clock: Clock = epoch_ms) -> None:
        self._levels = levels
        self._clock = clock

    def __contains__(self, key: Key) -> bool:
        rendered = key_of(key)
        return any(rendered in hearing.keys for hearing in self._levels)

    async def heard(self, level: int, *, oldest_ms: int, given_ms: int, given_at: float) -> None:
        """Return when what was said of records of this age, read from partitions given then, is known.

        Work that was written after its partition was given can have been taken by nobody before.
        """
        if oldest_ms - MARGIN_MS > given_ms:
            return
        since_ms = max(oldest_ms - MARGIN_MS, self._clock() - LOOKBACK_MS)
        await self._levels[level].heard(since_ms, after=given_at)

    async def close(self) -> None:
        """Send everybody away who waits."""
        await asyncio.gather(*(hearing.close() for hearing in self._levels))
