"""What waits in the retry topics: how many, and since when. A gauge of memory alone is 0 while a receiver is down.

A partition whose head waits is not read on, so nobody holds what stands behind it. Its length is a difference of
offsets; its beginnings are read once, here, beside the consumer, and only what is needed to know the oldest is kept.
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
"""Two small requests for each partition in which anything was seen; what is younger than this may be missing."""
PARTITION_TIMEOUT_S = 10.0
MAX_MARKS = 256
"""Per partition, so that a million that wait cost no memory; beyond it neighbours share the older one's beginning."""


class LagWindow:
    """The oldest beginning in a run of offsets that grows at its end and is consumed at its head. Pure."""

    def __init__(self, head: int) -> None:
        self.head = head
        self.end = head
        self.next = head
        self._marks: deque[tuple[int, int]] = deque()

    def add(self, offset: int, created_ms: int) -> None:
        """Note the record at the end; whatever stands before it and is younger can never be the oldest again."""
        self.next = offset + 1
        marks = self._marks
        while marks and marks[-1][1] >= created_ms:
            marks.pop()
        marks.append((offset, created_ms))
        if len(marks) > MAX_MARKS:
            entries = list(marks)
            # Too old rather than too young: the beginning of the first counts until the second has gone.
            pairs = zip(entries[::2], entries[1::2], strict=False)
            marks.clear()
            marks.extend((later[0], earlier[1]) for earlier, later in pairs)
            marks.extend(entries[len(entries) // 2 * 2 :])

    def advance(self, head: int) -> None:
        """Forget what has been taken."""
        self.head = max(self.head, head)
        self.next = max(self.next, head)
        while self._marks and self._marks[0][0] < self.head:
            self._marks.popleft()

    @property
    def count(self) -> int:
        """Count what waits."""
        return max(0, self.end - self.head)

    @property
    def oldest_ms(self) -> int | None:
        """Return when the oldest began."""
        return self._marks[0][1] if self._marks else None


class LagTracker:
    """What waits in the partitions of this process; `heads` tells from which offset on, and is asked every time."""

    def __init__(self, lookup: LogReader, heads: Callable[[], Mapping[TopicPartition, int]]) -> None:
        self._lookup = lookup
        self._heads = heads
        self._windows: dict[TopicPartition, LagWindow] = {}

    def __len__(self) -> int:
        return sum(window.count for window in self._current())

    def oldest_ms(self) -> int | None:
        """Return when the oldest that waits began."""
        return min((found for window in self._current() if (found := window.oldest_ms) is not None), default=None)

    async def run(self) -> None:
        """Keep looking."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Read what has come since the last time; what cannot be read now is read the next time."""
        self._current()
        for tp, window in list(self._windows.items()):
            try:
                async with asyncio.timeout(PARTITION_TIMEOUT_S):
                    await self._extend(tp, window)
            except (KafkaError, OSError, TimeoutError, Unavailable) as error:
                log.info("what waits: %s", error or "no answer in time", extra={"event": "callback_backlog_unread"})

    async def _extend(self, tp: TopicPartition, window: LagWindow) -> None:
        first, end = (await self._lookup.bounds([tp]))[tp]
        window.advance(first)  # what was kept for too long has gone
        try:
            async for record in self._lookup.read_range(tp, window.next, end):
                try:
                    created_ms = DELIVERY.decode(record.value or b"")["created_ms"]
                except (FramingError, SchemaError):
                    continue  # the reader puts it aside when its time comes
                window.add(record.offset, created_ms)
            window.next = max(window.next, end)
        finally:
            window.end = end  # only now, so that what is counted has an age

    def _current(self) -> Iterable[LagWindow]:
        """Bring the windows in line with what has been taken, given and revoked."""
        before, self._windows = self._windows, {}
        for tp, head in self._heads().items():
            window = before.get(tp)
            if window is None or head < window.head:
                window = LagWindow(head)  # new here, or read again from an earlier place
            window.advance(head)
            self._windows[tp] = window
        return self._windows.values()


def export_lag(in_flight: Iterable[InFlightDeliveries], backlog: LagTracker) -> None:
    """Set the gauges of what is not delivered yet."""
    held = list(in_flight)
    begun_ms = (backlog.oldest_ms(), *(each.oldest_ms() for each in held))
    oldest = [found for found in begun_ms if found is not None]
    metrics.WEBHOOK_PENDING.set(sum(map(len, held)) + len(backlog))
    metrics.WEBHOOK_OLDEST.set(max(0, epoch_ms() - min(oldest)) / 1000 if oldest else 0)
