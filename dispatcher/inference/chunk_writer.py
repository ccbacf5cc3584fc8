"""Chunk records of one stream: the first token at once, then what arrives within a window.

The windows of all streams end at the same moments of the loop's clock. So the chunks of all streams are written
together and reach their readers in one fetch; with separate windows, fifty streams kept every process busy with
hundreds of small writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from core.clock import Clock
from core.errors import Unavailable
from core.kafka.producer import Producer, Record
from core.settings.models import Settings
from core.sse import event_of
from dispatcher import metrics
from schemas import topics
from schemas.codec import CHUNK
from schemas.headers import headers
from schemas.records import Work

CHUNK_BYTES = 131_072
HEADROOM_BYTES = 8192
FLUSH_S = 2.0
"""How long the end of a stream waits for a slow broker: readers can read the rest from the result."""


class ChunkWriter:
    """Numbers and writes the frames of one run; a record that Kafka rejects leaves a gap, which readers notice."""

    def __init__(
        self, settings: Settings, producer: Producer, work: Work, *, worker: str, home: int, clock: Clock
    ) -> None:
        self._producer = producer
        self._work = work
        self._worker = worker
        self._home = home
        self._clock = clock
        self._topic = settings.topic(topics.CHUNKS)
        self._window_s = settings.dispatcher.chunk_window_s
        self._largest = settings.kafka.max_message_bytes - HEADROOM_BYTES
        self._frames: list[bytes] = []
        self._arrived = asyncio.Event()
        self._writing = asyncio.Lock()
        self._pump: asyncio.Task[None] | None = None
        self.count = 0
        self.frames = 0
        """Number of frames added, written or not."""
        self.first_ms: int | None = None
        """When the first frame was added."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    def add(self, frames: Iterable[bytes]) -> None:
        """Add frames; they are written with the next record."""
        waiting = len(self._frames)
        self._frames.extend(frames)
        self.frames += len(self._frames) - waiting
        if self._frames:
            if self.first_ms is None:
                self.first_ms = self._clock()
            self._arrived.set()
            if self._pump is None:
                self._pump = asyncio.create_task(self._run(), name=f"chunks-{self._work['id']}")

    async def flush(self) -> None:
        """Write the remaining frames; `count` is final afterwards, also when the broker was too slow."""
        try:
            async with asyncio.timeout(FLUSH_S):
                async with self._writing:  # an interrupted write would be a gap
                    await self.__aexit__(None, None, None)
                await self._write_all()
        except TimeoutError:
            await self.__aexit__(None, None, None)
            while self._frames:
                self._next_batch()
                self.count += 1
                metrics.CHUNKS_LOST.inc()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if self.count and self._window_s:
                await asyncio.sleep(seconds_to_next_flush(asyncio.get_running_loop().time(), self._window_s))
            self._arrived.clear()
            await self._write_all()

    async def _write_all(self) -> None:
        async with self._writing:
            while self._frames:
                await self._write(self._next_batch())

    def _next_batch(self) -> list[bytes]:
        """Take the frames of the next record, of limited size; a frame is never split."""
        size = count = 0
        for frame in self._frames:
            size += len(frame)
            if count and size > CHUNK_BYTES:
                break
            count += 1
        batch = self._frames[:count]
        del self._frames[:count]
        return batch

    async def _write(self, frames: list[bytes]) -> None:
        seq, self.count = self.count, self.count + 1
        if sum(map(len, frames)) > self._largest:
            metrics.CHUNKS_LOST.inc()
            return
        now_ms = self._clock()
        task_id, attempt = self._work["id"], self._work["attempt"]
        described = headers(
            kind="chunk", ce_id=f"{task_id}/{attempt}/{seq}", at_ms=now_ms, level=self._work["level"], attempt=attempt
        )
        events = [event_of(frame) for frame in frames]
        value = CHUNK.encode(
            {
                "id": task_id,
                "attempt": attempt,
                "worker": self._worker,
                "seq": seq,
                "frames": frames,
                "events": events if any(events) else [],
            }
        )
        try:
            future = await self._producer.enqueue(
                self._topic, self._home, Record(task_id.encode(), value, described, now_ms)
            )
        except Unavailable:
            metrics.CHUNKS_LOST.inc()
        else:
            future.add_done_callback(_count_write)


def seconds_to_next_flush(now_s: float, window_s: float) -> float:
    """Return the seconds to the next flush: the same moment for all streams within one window."""
    return window_s - now_s % window_s


def _count_write(future: asyncio.Future[Any]) -> None:
    if future.cancelled() or future.exception() is not None:
        metrics.CHUNKS_LOST.inc()
    else:
        metrics.CHUNKS.inc()
