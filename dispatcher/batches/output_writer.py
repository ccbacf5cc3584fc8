"""Writer of one partition: from the results of its batches' lines to the segments of their output and error files.

It reads the results that the batch rows point to, and continues from their state: a segment counts once the scheduler
has accepted it into the row. A writer that was paused, or has lost its partition, finds another state in the row, and
discards its own segments.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import aclosing

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from core.clock import Clock, epoch_ms
from core.errors import Unavailable
from core.kafka.log_reader import LogReader, LogRecord
from core.kafka.producer import Producer
from core.settings.models import Settings
from core.storage.blobs import BlobStore
from dispatcher import metrics
from dispatcher.batches import output_lines, output_segments
from dispatcher.batches.input_reader import UnsubmittedLines
from dispatcher.batches.output_segments import SegmentBuilder, SentSegment
from dispatcher.batches.records import OFFLINE, LineTasks
from schemas import bitmap, topics
from schemas.batches import Batch, segment_name
from schemas.codec import RESULT, SchemaError
from schemas.common import BatchPart
from schemas.events import batch_progress_event, change
from schemas.framing import FramingError
from schemas.headers import BATCH_ID, find
from schemas.ids import parse

log = logging.getLogger(__name__)

SEGMENT_BYTES = 4_194_304
MAX_BUFFERED_BYTES = 33_554_432
"""Maximum bytes that the writers of all partitions may buffer, if one process has them all."""
MIN_BUFFERED_BYTES = 262_144
READ_RECORDS = 1_000
READ_TIMEOUT_S = 10.0
YIELD_EVERY = 100
"""Records after which the event loop runs other tasks: online calls may run in the same process."""
MIN_AGE_S, MAX_AGE_S = 1.0, 300.0
"""Maximum wait of a line for its segment: 1 % of the batch's age, so that a batch of days has few segments."""
ACCEPT_TIMEOUT_S = 30.0
"""How long the scheduler may take to accept a part; then it is written again, and only one of the two can count."""
RESULT_TIMEOUT_S = 60.0
"""How long an expected result is searched for."""


class OutputWriter:
    """Works in steps; its state can be discarded at any moment."""

    def __init__(
        self,
        settings: Settings,
        *,
        home: int,
        rows: Callable[[], list[Batch]],
        log_reader: LogReader,
        blobs: BlobStore,
        producer: Producer,
        clock: Clock = epoch_ms,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._rows = rows
        self._log_reader = log_reader
        self._blobs = blobs
        self._producer = producer
        self._clock = clock
        self._monotonic = monotonic
        self._max_bytes = max(min(SEGMENT_BYTES, MAX_BUFFERED_BYTES // settings.kafka.partitions), MIN_BUFFERED_BYTES)
        self._tp = TopicPartition(settings.topic(topics.results(OFFLINE)), home)
        self._builders: dict[str, SegmentBuilder] = {}
        self._missing: dict[str, float] = {}
        self.uncountable: set[str] = set()
        """Batches that were stopped before their lines were counted, and whose file cannot be read."""

    async def step(self) -> bool:
        """Read some results and write due segments; True when there is more to do at once. Raises Unavailable."""
        rows = {row["id"]: row for row in self._rows() if row["state"] != "validating"}
        self._sync(rows)
        more = await self._read(rows)
        for batch_id, builder in list(self._builders.items()):
            row = rows[batch_id]
            last = await self._add_unsubmitted(row, builder)
            if builder.sent is None and (last or self._is_due(row, builder)):
                await self._write(row, builder, last=last)
        return more

    def _sync(self, rows: dict[str, Batch]) -> None:
        """Update the builders to the rows."""
        for batch_id in [one for one in self._builders if one not in rows]:
            del self._builders[batch_id]
            self._missing.pop(batch_id, None)
            self.uncountable.discard(batch_id)
        for batch_id, row in rows.items():
            builder = self._builders.get(batch_id)
            if builder is not None:
                late = builder.sent is not None and self._monotonic() - builder.sent.at_s > ACCEPT_TIMEOUT_S
                if builder.continues(row) and not (late and builder.sent is not None):
                    continue
                metrics.BATCH_SEGMENTS_DISCARDED.inc()
                log.info(
                    "batch %s: another writer is ahead; discarding the local segment and resuming from the batch row",
                    batch_id,
                    extra={"event": "batch_segment_discarded", "batch_id": batch_id},
                )
            self._builders[batch_id] = SegmentBuilder(row)

    async def _read(self, rows: dict[str, Batch]) -> bool:
        """Read the next results that the rows point to; True when there are more."""
        if self._is_full:
            return False  # until the scheduler has accepted a segment
        behind = {one: builder.position for one, builder in self._builders.items() if is_behind(rows[one], builder)}
        begin = min((upto for upto in behind.values() if upto is not None), default=None)
        if begin is None:
            return False
        end = max((rows[one]["last_result"] or 0) for one in behind) + 1
        builders = {
            one: builder
            for one, builder in self._builders.items()
            if builder.position is not None and builder.position >= begin
        }
        position = await self._read_between(begin, end, builders)
        for builder in builders.values():
            builder.position = max(builder.position or 0, position)
        return position < end

    async def _read_between(self, begin: int, end: int, builders: dict[str, SegmentBuilder]) -> int:
        """Read some results from an offset on; returns the next offset."""
        position = begin
        try:
            async with (
                asyncio.timeout(READ_TIMEOUT_S),
                aclosing(self._log_reader.read_range(self._tp, begin, end)) as found,
            ):
                async for record in found:
                    position = record.offset + 1
                    self._add_result(record, builders)
                    if self._is_full or position - begin >= READ_RECORDS:
                        return position
                    if not position % YIELD_EVERY:
                        await asyncio.sleep(0)
        except (TimeoutError, KafkaError, OSError) as error:
            raise Unavailable(f"the results cannot be read: {error or type(error).__name__}") from error
        if position == begin:  # the records were deleted by the retention
            first, _ = (await self._log_reader.bounds([self._tp]))[self._tp]
            return min(first, end) if first > begin else end
        return end

    @property
    def _is_full(self) -> bool:
        return sum(builder.size for builder in self._builders.values()) >= self._max_bytes

    def _add_result(self, record: LogRecord, builders: dict[str, SegmentBuilder]) -> None:
        batch_id = (find(record.headers, BATCH_ID) or b"").decode(errors="replace")
        builder = builders.get(batch_id)
        if builder is None or record.value is None or record.offset < (builder.position or 0):
            return
        try:
            result = RESULT.decode(record.value)
        except (FramingError, SchemaError) as error:
            log.error(
                "cannot decode result %s-%d@%d: %s",
                record.topic,
                record.partition,
                record.offset,
                error,
                extra={"event": "result_unreadable"},
            )
            return
        builder.add(result["batch_line"], output_lines.line_of(result), now_s=self._monotonic())

    async def _add_unsubmitted(self, row: Batch, builder: SegmentBuilder) -> bool:
        """Add the unsubmitted lines of a stopped batch; True when the next segment is the last one."""
        if row["state"] == "in_progress" or is_behind(row, builder):
            return False
        if not self._has_results(row, builder) or (not row["total"] and row["id"] not in self.uncountable):
            return False
        if builder.unsubmitted is None:
            builder.unsubmitted = UnsubmittedLines(self._blobs, row)
        tasks = LineTasks(row)
        while not builder.unsubmitted.exhausted and not self._is_full:
            for request, custom_id in await builder.unsubmitted.next_page():
                line = output_lines.unsubmitted_line(row, custom_id, task_id=parse(tasks.task_id(request)))
                builder.add(request, line, now_s=self._monotonic())
        return builder.unsubmitted.exhausted

    def _has_results(self, row: Batch, builder: SegmentBuilder) -> bool:
        """Return whether every submitted line is here; a line whose result is no longer retained gets an error."""
        if builder.count(row["fed"]) >= row["fed"]:
            return True
        if bitmap.count(row["ended"]) < row["fed"]:  # the scheduler ends the lines of a stopped batch in steps
            return False
        since = self._missing.setdefault(row["id"], self._monotonic())
        if self._monotonic() - since < RESULT_TIMEOUT_S:
            return False
        tasks = LineTasks(row)
        missing = [request for request in range(row["fed"]) if not builder.contains(request)]
        log.error(
            "batch %s: the results of %d lines are missing in the log",
            row["id"],
            len(missing),
            extra={"event": "batch_results_missing", "batch_id": row["id"], "count": len(missing)},
        )
        for request in missing:
            task_id = parse(tasks.task_id(request))
            line = output_lines.error_line(None, "result_lost", "The result is no longer retained.", task_id=task_id)
            builder.add(request, line, now_s=self._monotonic())
        return True

    def _is_due(self, row: Batch, builder: SegmentBuilder) -> bool:
        if not builder.lines:
            return False
        age_s = (self._clock() - row["created_ms"]) / 1000
        max_age_s = min(max(MIN_AGE_S, age_s / 100), MAX_AGE_S)
        ends = row["state"] != "in_progress" and not is_behind(row, builder)
        return ends or self._is_full or self._monotonic() - builder.since_s >= max_age_s

    async def _write(self, row: Batch, builder: SegmentBuilder, *, last: bool) -> None:
        """Write a segment and ask the scheduler to accept it; raises Unavailable, and then the builder is unchanged."""
        begin = builder.begin or 0
        part: BatchPart = {
            "end": begin if builder.position is None else builder.position,
            "token": secrets.token_hex(8),
            "output_bytes": 0,
            "error_bytes": 0,
            "output_lines": 0,
            "error_lines": 0,
        }
        try:
            await self._write_segments(row["id"], part, builder)
        except output_segments.BodyMissing as missing:
            log.error(
                "batch %s: the stored response of line %d is missing: %s",
                row["id"],
                missing.request,
                missing.code,
                extra={"event": "batch_body_missing", "batch_id": row["id"]},
            )
            task_id = parse(LineTasks(row).task_id(missing.request))
            custom_id = builder.lines[missing.request].custom_id
            message = "The stored response is missing."
            builder.lines[missing.request] = output_lines.error_line(custom_id, missing.code, message, task_id=task_id)
            return
        held = bitmap.of(builder.lines)
        update = change(part=part, begin=begin, lines=held, last=last)
        report = batch_progress_event(self._settings.kafka.topic_prefix, row, "batch_part", update, at_ms=self._clock())
        await self._producer.send(*report)
        metrics.BATCH_LINES_WRITTEN.inc(len(builder.lines))
        builder.mark_sent(SentSegment(part, self._monotonic(), builder.written))

    async def _write_segments(self, batch_id: str, part: BatchPart, builder: SegmentBuilder) -> None:
        good = {request: line for request, line in builder.lines.items() if line.good}
        bad = {request: line for request, line in builder.lines.items() if not line.good}
        part["output_bytes"] = await output_segments.write_segment(
            self._blobs, segment_name(batch_id, part, errors=False), good
        )
        part["error_bytes"] = await output_segments.write_segment(
            self._blobs, segment_name(batch_id, part, errors=True), bad
        )
        part["output_lines"], part["error_lines"] = len(good), len(bad)


def is_behind(row: Batch, builder: SegmentBuilder) -> bool:
    """Return whether the log has results of a batch that were not read."""
    last = row["last_result"]
    return last is not None and (builder.position is None or builder.position <= last)
