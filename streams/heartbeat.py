"""Tell every ingress and dispatcher that this scheduler works, for which partitions, and which workers it hears.

The pulse is the proof behind /readyz: a heartbeat came from a dispatcher through events.LEVEL and the fold to here.
"""

from __future__ import annotations

import asyncio
import logging
import time

from core.errors import Unavailable
from core.kafka.producer import Producer, Record
from core.settings.models import Settings
from schemas import topics
from schemas.codec import CONTROL
from schemas.headers import headers
from schemas.topics import level_name
from streams import metrics
from streams.state_index import StateIndex

log = logging.getLogger(__name__)

INTERVAL_S = 2
SLOW_MS = 2_000
"""A pulse that takes this long met a broker that is away."""
DEBOUNCE_S = 0.05
"""A worker announces itself to every partition at once: wait that long, so that one pulse tells of all."""


class SchedulerHeartbeat:
    """Write a control record every two seconds and whenever the workers change."""

    def __init__(
        self,
        settings: Settings,
        level: int,
        *,
        name: str,
        producer: Producer,
        index: StateIndex,
        changed: asyncio.Event,
    ) -> None:
        self._topic = settings.topic(topics.CONTROLS)
        self._lease_ms = int(settings.streams.lease_s * 1000)
        self._level = level
        self._name = name
        self._producer = producer
        self._index = index
        self._changed = changed
        self._asked_ms: int | None = None
        self._since_ms = now_ms()
        self.partitions: set[int] = set()

    def kafka_since_ms(self) -> int:
        """Return since when Kafka has taken our pulses without a break; now, while one is not taken."""
        late = self._asked_ms is not None and now_ms() - self._asked_ms > SLOW_MS
        return now_ms() if late else self._since_ms

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            if self.partitions:
                await self._send_and_watch()
            self._changed.clear()
            try:
                async with asyncio.timeout(INTERVAL_S):
                    await self._changed.wait()
                await asyncio.sleep(DEBOUNCE_S)
            except TimeoutError:
                continue

    async def _send_and_watch(self) -> None:
        """Beat, and note when Kafka was away: workers cannot be heard then, and must not be taken for dead."""
        self._asked_ms = asked_ms = now_ms()
        taken = False
        try:
            await self._send(asked_ms)
            taken = True
        except Unavailable as error:
            log.warning("pulse: %s", error, extra={"event": "pulse_missed"})
        finally:
            self._asked_ms = None
            if not taken or now_ms() - asked_ms > SLOW_MS:
                self._since_ms = now_ms()

    async def _send(self, at_ms: int) -> None:
        workers = self._index.alive(now_ms=at_ms, lease_ms=self._lease_ms)
        level = level_name(self._level)
        metrics.PARTITIONS.labels(level).set(len(self.partitions))
        metrics.WORKERS.labels(level).set(len(workers))
        value = CONTROL.encode(
            {
                "kind": "pulse",
                "at_ms": at_ms,
                "level": self._level,
                "id": "",
                "reason": None,
                "scheduler": self._name,
                "partitions": sorted(self.partitions),
                "workers": workers,
            }
        )
        described = headers(
            kind="control.pulse", ce_id=f"{self._name}/{at_ms}", at_ms=at_ms, level=self._level, source=self._name
        )
        await self._producer.send(self._topic, 0, Record(self._name.encode(), value, described, at_ms))


def now_ms() -> int:
    """Return the time."""
    return time.time_ns() // 1_000_000
