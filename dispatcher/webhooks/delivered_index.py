"""Results that were delivered before their partition was assigned to this process: they are not posted again.

One slow delivery holds back the offset of its partition, so after a kill -9 many delivered results lie behind it. Their
delivery rows are read; only the state "delivered" counts, because the other records of an attempt are in several topics
and may be incomplete.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from core.deliveries import row_key
from core.errors import Unavailable
from core.kafka.log_reader import LogReader
from core.settings.models import Settings
from dispatcher.group_consumer import ReceivedRecord
from dispatcher.offset_tracker import OffsetTracker
from schemas import topics
from schemas.codec import DELIVERY, SchemaError
from schemas.framing import FramingError
from schemas.records import Delivery

log = logging.getLogger(__name__)

SCAN_TIMEOUT_S = 10.0
CLOCK_SKEW_MS = 5_000


class _Scan(NamedTuple):
    tracker: OffsetTracker
    delivered: set[bytes]


class DeliveredIndex:
    """The delivered results; the rows of each partition are read once per assignment, from its first record on."""

    def __init__(self, settings: Settings, log_reader: LogReader) -> None:
        self._topic = settings.topic(topics.DELIVERIES)
        self._log_reader = log_reader
        self._scans: dict[TopicPartition, _Scan] = {}

    async def delivered(self, received: ReceivedRecord, delivery: Delivery) -> bool:
        """Return whether the first delivery of a result was accepted before its partition was assigned here."""
        tp = TopicPartition(received.record.topic, received.record.partition)
        scan = self._scans.get(tp)
        if scan is None or scan.tracker is not received.tracker:
            found = await self._read(tp.partition, from_ms=received.record.timestamp - CLOCK_SKEW_MS)
            scan = self._scans[tp] = _Scan(received.tracker, found)
        key = row_key(delivery["task_id"], delivery["event"])
        if key not in scan.delivered:
            return False
        scan.delivered.discard(key)
        return True

    async def _read(self, partition: int, *, from_ms: int) -> set[bytes]:
        found: set[bytes] = set()
        try:
            async with asyncio.timeout(SCAN_TIMEOUT_S):
                async for record in self._log_reader.scan(TopicPartition(self._topic, partition), from_ms=from_ms):
                    if record.key is not None and record.value is not None and _accepted(record.value):
                        found.add(record.key)
        except (KafkaError, OSError, TimeoutError, Unavailable) as error:
            # An unknown delivery is posted twice, with the same webhook-id.
            log.info(
                "cannot read the delivery rows: %s",
                error or "timeout",
                extra={"event": "webhook_scan_failed"},
            )
        return found


def _accepted(value: bytes) -> bool:
    try:
        row = DELIVERY.decode(value)
    except (FramingError, SchemaError):
        return False
    return row["state"] == "delivered" and not row["manual"]
