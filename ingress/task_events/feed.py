"""The state that all viewers of one task share: status changes, transcript and result, read once for all of them."""

from __future__ import annotations

import asyncio
import logging

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from core.errors import Unavailable
from ingress.read_model.task_snapshot import TaskSnapshot
from ingress.task_events import frames
from ingress.task_events.frames import RETRY_S, EventOutcome, OutcomeReader
from ingress.task_events.log_reader import ChunkLog, ReplayRequest, read_page
from ingress.task_events.transcript import Transcript
from schemas import ids
from schemas.records import TERMINAL, Chunk, Status

log = logging.getLogger(__name__)

CLOCK_SKEW_MS = 10_000
"""A run starts before the claim in its row: by a commit interval, at most 5 s, plus clock skew."""
CATCH_UP_TIMEOUT_S = 5.0
MAX_PENDING = 2_000
"""Progress frames beyond this number are dropped; status changes are always sent."""


class TaskEventFeed:
    """The events of one task. Its owner calls `run` once and passes rows and chunks to it."""

    def __init__(self, chunk_log: ChunkLog, outcomes: OutcomeReader, reading: TaskSnapshot, row: Status | None) -> None:
        self._chunk_log = chunk_log
        self._outcomes = outcomes
        self._reading = reading
        self.id = ids.parse(reading.id)
        self.key = reading.id.encode()
        self.transcript = Transcript()
        self.notes: list[bytes] = []
        """Frames of status and progress changes, in order."""
        self.now: bytes | None = None
        """The present status frame; None once the task has ended."""
        self.ready = False
        """Whether past chunks have been read: before that the current run is not known."""
        self.ended: EventOutcome | None = None
        self.closing = False
        self.broken = False
        self._tp = TopicPartition(chunk_log.topic, self.id.partition)
        self._row: Status | None = None
        self._final: asyncio.Future[Status] = asyncio.get_running_loop().create_future()
        self._live: list[tuple[Chunk, int]] | None = []  # until the past has been read
        self._live_from = self._position()
        self._viewers: set[asyncio.Event] = set()
        self._notified: tuple[str, int] = ("queued", 1)
        if row is None:
            self.now = frames.status_frame(reading.id, *self._notified)
        else:
            self.on_row(row)
            self.notes.clear()

    def notify_on_change(self, event: asyncio.Event) -> None:
        """Set an event on every change, until `forget`."""
        self._viewers.add(event)

    def forget(self, event: asyncio.Event) -> None:
        """Stop setting an event."""
        self._viewers.discard(event)

    def on_row(self, row: Status) -> None:
        """Apply a status row."""
        before, self._row = self._row, row
        if row["state"] in TERMINAL:
            self.now = None
            if not self._final.done():
                self._final.set_result(row)
            return
        before_state, self._notified = self._notified, (row["state"], row["attempt"])
        self.now = frames.status_of(row)
        if self._notified != before_state:
            self.notes.append(self.now)
        elif before is not None and before["progress"] != row["progress"] and len(self.notes) < MAX_PENDING:
            self.notes.append(frames.progress_frame(row["id"], row["progress"]))
        self._wake()

    def on_chunk(self, chunk: Chunk, offset: int) -> None:
        """Apply a chunk record from the end of the topic."""
        if self._live is not None:
            self._live.append((chunk, offset))
        elif self.transcript.add(chunk, offset):
            self._wake()

    def on_shutdown(self) -> None:
        """End all viewers, because this process stops."""
        self.closing = True
        self._wake()

    async def run(self) -> None:
        """Read past chunks, then wait for the result."""
        try:
            if self._streams and not self._final.done():
                await self._read_past(None)
            self.ready = True
            self._wake()
            self.ended = await self._end(await self._final)
        except Exception:
            log.exception("task events of %s failed", self._reading.id, extra={"event": "task_events_crashed"})
            self.broken = True
        self._wake()

    async def reread(self, frame: int) -> list[bytes]:
        """Reread frames that the transcript has evicted; an empty list when the topic no longer has them."""
        mark, run = self.transcript.mark(frame), self.transcript.run
        if mark is None or run is None:
            return []
        records = self._chunk_log.log_reader.read_range(self._tp, mark.offset, self._position())
        try:
            async with asyncio.timeout(CATCH_UP_TIMEOUT_S):
                return await read_page(records, key=self.key, run=run, mark=mark, frame=frame)
        except (TimeoutError, KafkaError, OSError, Unavailable) as error:
            reason = str(error) or type(error).__name__
            log.warning(
                "cannot reread frames of %s: %s", self._reading.id, reason, extra={"event": "frame_reread_failed"}
            )
            return []

    async def _end(self, row: Status) -> EventOutcome:
        outcome = await self._outcomes.read(row)
        if outcome.text is None and self._streams and row["state"] != "expired":
            if self._live is not None:
                await self._read_past(row["finished_ms"])
            await self._catch_up()
        self._live = None
        self.transcript.finish(outcome.result, outcome.text)
        return outcome._replace(text=None)

    @property
    def _streams(self) -> bool:
        return self._reading.mode == "streaming" or (self._row is not None and self._row["streamed"])

    async def _read_past(self, until_ms: int | None) -> None:
        """Read chunks written before the follower delivered this task's chunks, then those delivered since."""
        started_ms = self._row["started_ms"] if self._row is not None else None
        begin_ms = max(self._reading.created_ms, started_ms or 0) - CLOCK_SKEW_MS
        begin = await self._offset_at(begin_ms)
        end = None if until_ms is None else await self._offset_at(until_ms + CLOCK_SKEW_MS)
        end = self._live_from if end is None else min(end, self._live_from)
        if begin is not None and begin < end:
            await self._chunk_log.replayer.read(self._tp, ReplayRequest(self.key, begin, end, self.transcript.add))
        live, self._live = self._live or [], None
        for chunk, offset in live:
            self.transcript.add(chunk, offset)

    async def _offset_at(self, at_ms: int) -> int | None:
        while True:
            try:
                return await self._chunk_log.log_reader.offset_at(self._tp, at_ms)
            except Unavailable:
                await asyncio.sleep(RETRY_S)

    async def _catch_up(self) -> None:
        """Return when the follower has passed the end offset at the end of the task."""
        tail = self._chunk_log.tail
        try:
            async with asyncio.timeout(CATCH_UP_TIMEOUT_S):
                _, end = (await self._chunk_log.log_reader.bounds([self._tp]))[self._tp]
                if self._position() < end:
                    await tail.wait_for_offset(self._tp, end - 1)
        except (TimeoutError, Unavailable):
            log.warning(
                "task events of %s: chunk topic is lagging", self._reading.id, extra={"event": "chunk_log_lagging"}
            )

    def _position(self) -> int:
        return self._chunk_log.tail.positions.get(self._tp, 0)

    def _wake(self) -> None:
        for event in self._viewers:
            event.set()
