"""Lag of the retry topics: the number of waiting deliveries, and the age of the oldest one.

The consumer does not read a partition whose first record waits, so the number is a difference of offsets. The creation
times are read once, here, and only those are stored that are needed to know the oldest. A gauge of the deliveries in
memory alone would be 0 while a receiver is down.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from core.clock import epoch_ms
from core.errors import Unavailable
from core.kafka.log_reader import LogReader
from dispatcher import metrics
from dispatcher.webhooks.in_flight import InFlightDeliveries
from schemas.codec import DELIVERY, SchemaError
from schemas.framing import FramingError

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 5.0
"""Two small requests for each partition with records; younger deliveries may be missing in the gauges."""
PARTITION_TIMEOUT_S = 10.0
MAX_MARKS = 256
"""Per partition, so that a million deliveries need little memory; above it neighbours share the earlier time."""


class LagWindow:
    """The oldest creation time in a range of offsets that grows at its end and is consumed at its head. Pure."""

    def __init__(self, head: int) -> None:
        self.head = head
        self.end = head
        self.next = head
        self._marks: deque[tuple[int, int]] = deque()

    def add(self, offset: int, created_ms: int) -> None:
        """Add the record at the end; a younger record before it can never be the oldest again."""
        self.next = offset + 1
        marks = self._marks
        while marks and marks[-1][1] >= created_ms:
            marks.pop()
        marks.append((offset, created_ms))
        if len(marks) > MAX_MARKS:
            entries = list(marks)
            # too old rather than too young: the time of the first counts until the second has gone
            pairs = zip(entries[::2], entries[1::2], strict=False)
            marks.clear()
            marks.extend((later[0], earlier[1]) for earlier, later in pairs)
            marks.extend(entries[len(entries) // 2 * 2 :])

    def advance(self, head: int) -> None:
        """Remove the consumed records."""
        self.head = max(self.head, head)
        self.next = max(self.next, head)
        while self._marks and self._marks[0][0] < self.head:
            self._marks.popleft()

    @property
    def count(self) -> int:
        """Return the number of waiting records."""
        return max(0, self.end - self.head)

    @property
    def oldest_ms(self) -> int | None:
        """Return the creation time of the oldest record."""
        return self._marks[0][1] if self._marks else None


class LagTracker:
    """The lag of the partitions of this process; `heads` returns the next offset of each."""

    def __init__(self, log_reader: LogReader, heads: Callable[[], Mapping[TopicPartition, int]]) -> None:
        self._log_reader = log_reader
        self._heads = heads
        self._windows: dict[TopicPartition, LagWindow] = {}

    def __len__(self) -> int:
        return sum(window.count for window in self._current())

    def oldest_ms(self) -> int | None:
        """Return the creation time of the oldest waiting delivery."""
        return min((found for window in self._current() if (found := window.oldest_ms) is not None), default=None)

    async def run(self) -> None:
        """Refresh periodically."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Read the records since the last refresh; after a failure they are read at the next one."""
        self._current()
        for tp, window in list(self._windows.items()):
            try:
                async with asyncio.timeout(PARTITION_TIMEOUT_S):
                    await self._extend(tp, window)
            except (KafkaError, OSError, TimeoutError, Unavailable) as error:
                log.info(
                    "cannot read the webhook lag: %s",
                    error or "timeout",
                    extra={"event": "webhook_lag_read_failed"},
                )

    async def _extend(self, tp: TopicPartition, window: LagWindow) -> None:
        first, end = (await self._log_reader.bounds([tp]))[tp]
        window.advance(first)  # deleted by the retention
        try:
            async for record in self._log_reader.read_range(tp, window.next, end):
                try:
                    created_ms = DELIVERY.decode(record.value or b"")["created_ms"]
                except (FramingError, SchemaError):
                    continue  # the consumer sends it to the dead letters when its time comes
                window.add(record.offset, created_ms)
            window.next = max(window.next, end)
        finally:
            window.end = end  # only now, so that every counted record has an age

    def _current(self) -> Iterable[LagWindow]:
        """Update the windows to the consumed offsets and the assignment."""
        before, self._windows = self._windows, {}
        for tp, head in self._heads().items():
            window = before.get(tp)
            if window is None or head < window.head:
                window = LagWindow(head)  # newly assigned, or consumed again from an earlier offset
            window.advance(head)
            self._windows[tp] = window
        return self._windows.values()


def export_lag(in_flight: Iterable[InFlightDeliveries], backlog: LagTracker) -> None:
    """Set the gauges of pending deliveries."""
    held = list(in_flight)
    begun_ms = (backlog.oldest_ms(), *(each.oldest_ms() for each in held))
    oldest = [found for found in begun_ms if found is not None]
    metrics.WEBHOOK_PENDING.set(sum(map(len, held)) + len(backlog))
    metrics.WEBHOOK_OLDEST.set(max(0, epoch_ms() - min(oldest)) / 1000 if oldest else 0)
