"""The scheduler heartbeat: tells ingresses and dispatchers which partitions and live workers this scheduler has.

/readyz of the ingress depends on it: a worker in it proves that events pass through events.LEVEL and the scheduler.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Set as AbstractSet

from core.clock import epoch_ms
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
"""A heartbeat that takes this long is taken as an outage of the broker."""
DEBOUNCE_S = 0.05
"""Delay after a change: a worker announces itself in every partition, and one heartbeat should include all of them."""


class SchedulerHeartbeat:
    """Writes a control record every two seconds and whenever the workers change."""

    def __init__(
        self,
        settings: Settings,
        level: int,
        *,
        name: str,
        producer: Producer,
        index: StateIndex,
        partitions: AbstractSet[int],
        changed: asyncio.Event,
    ) -> None:
        """`partitions` are the owned ones, changed at each rebalance; `changed` triggers a heartbeat at once."""
        self._topic = settings.topic(topics.CONTROLS)
        self._lease_ms = int(settings.streams.lease_s * 1000)
        self._level = level
        self._name = name
        self._producer = producer
        self._index = index
        self._changed = changed
        self._sent_ms: int | None = None
        self._since_ms = epoch_ms()
        self._partitions = partitions

    def kafka_since_ms(self) -> int:
        """Return since when all heartbeats were written in time, epoch ms; the current time while one is late."""
        late = self._sent_ms is not None and epoch_ms() - self._sent_ms > SLOW_MS
        return epoch_ms() if late else self._since_ms

    async def run(self) -> None:
        """Send heartbeats until cancelled."""
        while True:
            if self._partitions:
                await self._send_and_watch()
            self._changed.clear()
            try:
                async with asyncio.timeout(INTERVAL_S):
                    await self._changed.wait()
                await asyncio.sleep(DEBOUNCE_S)
            except TimeoutError:
                continue

    async def _send_and_watch(self) -> None:
        """Send a heartbeat and record an outage of Kafka, during which no worker can send its heartbeat, either."""
        self._sent_ms = sent_ms = epoch_ms()
        written = False
        try:
            await self._send(sent_ms)
            written = True
        except Unavailable as error:
            log.warning("cannot write the scheduler heartbeat: %s", error, extra={"event": "heartbeat_failed"})
        finally:
            self._sent_ms = None
            if not written or epoch_ms() - sent_ms > SLOW_MS:
                self._since_ms = epoch_ms()

    async def _send(self, at_ms: int) -> None:
        workers = self._index.alive(now_ms=at_ms, lease_ms=self._lease_ms)
        level = level_name(self._level)
        metrics.PARTITIONS.labels(level).set(len(self._partitions))
        metrics.WORKERS.labels(level).set(len(workers))
        value = CONTROL.encode(
            {
                "kind": "pulse",
                "at_ms": at_ms,
                "level": self._level,
                "id": "",
                "reason": None,
                "scheduler": self._name,
                "partitions": sorted(self._partitions),
                "workers": workers,
            }
        )
        described = headers(
            kind="control.pulse", ce_id=f"{self._name}/{at_ms}", at_ms=at_ms, level=self._level, source=self._name
        )
        await self._producer.send(self._topic, 0, Record(self._name.encode(), value, described, at_ms))
