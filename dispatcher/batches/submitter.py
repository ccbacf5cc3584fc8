"""The feeder of one batch: finds its file valid or not, then makes its lines tasks, a bounded number ahead of the ends.

Everything it knows is in the batch's row: a feeder that begins anew goes on at `fed`. A line that is written twice is
one task, for its id follows from the batch and the line; a line that comes after a gap is dropped by the scheduler,
and then the row does not move, and the feeder begins again where the row stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from core.clock import Clock, epoch_ms
from core.errors import Unavailable
from core.kafka.producer import Producer, Record
from core.settings.models import Settings
from core.storage.blobs import BlobCorrupt, BlobMissing, BlobStore
from dispatcher import metrics
from dispatcher.batches.input_reader import InputReader
from dispatcher.batches.line_splitter import InputLine
from dispatcher.batches.records import OFFLINE, LineTasks
from dispatcher.batches.request_line import BrokenLine, LineError, custom_id_of, read
from dispatcher.batches.validation import Validator
from schemas import topics
from schemas.batches import Batch
from schemas.common import BatchChange
from schemas.events import batch_progress_event, change
from schemas.ids import parse_batch
from schemas.media_types import JSON
from schemas.records import EventKind

log = logging.getLogger(__name__)

SLICE = 200
"""Lines made tasks at a time: some ten milliseconds of work."""
TURN = 50
"""Lines after which others have their turn: online calls may run in the same process."""
SHIP_BYTES = 2_097_152
STALL_S = 30.0
"""How long the row may stand still below what was written."""
MAX_STALL_S = 480.0
AGAIN_S = 1.0
LOOK_S = 1.0


def _never(_: Batch) -> bool:
    return False


class BatchChanged(Exception):
    """The row has left the state that was worked on."""


def needs_submission(row: Batch) -> bool:
    """Tell whether a batch needs its feeder: to be checked, to be fed, or to be counted when it was stopped early."""
    match row["state"]:
        case "validating":
            return True
        case "in_progress":
            return row["fed"] < row["total"]
        case _:
            return row["total"] == 0


class FairShare:
    """How many feeders of a process work at once: each holds a part of a file, and all share one event loop."""

    def __init__(self) -> None:
        self.validating = asyncio.Semaphore(2)
        self.feeding = asyncio.Semaphore(4)


class BatchSubmitter:
    """Feeds one batch until its row leaves in_progress."""

    def __init__(
        self,
        settings: Settings,
        *,
        batch_id: str,
        row: Callable[[], Batch | None],
        changed: asyncio.Event,
        blobs: BlobStore,
        producer: Producer,
        turns: FairShare,
        uncountable: Callable[[str], None] = lambda _: None,
        clock: Clock = epoch_ms,
        stall_s: float = STALL_S,
    ) -> None:
        """Prepare to feed.

        Args:
            row: the newest row of the batch, None once it has ended.
            changed: set whenever the row may have changed; this feeder alone clears it.
            uncountable: told of a batch that was stopped and whose lines cannot be counted.
        """
        self._settings = settings
        self._batch_id = batch_id
        self._row = row
        self._changed = changed
        self._blobs = blobs
        self._producer = producer
        self._turns = turns
        self._uncountable = uncountable
        self._clock = clock
        self._stall_s = stall_s
        self._patience_s = stall_s
        self._home = parse_batch(batch_id).partition
        self._tasks = settings.topic(topics.tasks(OFFLINE))

    async def run(self) -> None:
        """Return when there is nothing left to feed; waits out what Kafka and the object store do."""
        while True:
            try:
                row = self._row()
                if row is None or not needs_submission(row):
                    return
                if row["state"] == "in_progress":
                    await self._feed(row)
                elif row["state"] == "validating":
                    await self._validate(row)
                elif not await self._count(row):
                    self._uncountable(row["id"])
                    return
            except BatchChanged:
                continue
            except (Unavailable, BlobMissing, BlobCorrupt) as error:
                log.warning(
                    "batch %s is not fed now: %s",
                    self._batch_id,
                    error.message,
                    extra={"event": "batch_feed_failed", "batch_id": self._batch_id},
                )
                await asyncio.sleep(AGAIN_S if isinstance(error, Unavailable) else self._stall_s)

    async def _validate(self, row: Batch) -> None:
        verdict = await self._verdict(row)
        if verdict.errors:
            await self._say(row, "batch_invalid", change(errors=verdict.errors))
        else:
            await self._say(row, "batch_validated", change(total=verdict.total))
        # The word is durable; what is left is that the scheduler reads it.
        await self._wait(_never)

    async def _count(self, row: Batch) -> bool:
        """Count the lines of a batch that was stopped before that: they are all told of; False when that cannot be."""
        verdict = await self._verdict(row)
        if verdict.errors:
            return False
        await self._say(row, "batch_validated", change(total=verdict.total))
        await self._wait(lambda newest: newest["total"] > 0)
        return True

    async def _say(self, row: Batch, kind: EventKind, said: BatchChange) -> None:
        report = batch_progress_event(self._settings.kafka.topic_prefix, row, kind, said, at_ms=self._clock())
        await self._producer.send(*report)

    async def _verdict(self, row: Batch) -> Validator:
        async with self._turns.validating:
            return await self._judged(row)

    async def _judged(self, row: Batch) -> Validator:
        batches = self._settings.batches
        named = LineTasks(row).names_model
        verdict = Validator(batches, endpoint=row["endpoint"], one_model=batches.enforce_model and not named)
        if row["input"]["size"] > batches.max_bytes:
            verdict.refuse("file_too_large", f"The file is larger than {batches.max_bytes} bytes.")
            return verdict
        source = InputReader(self._blobs, row["input"])
        try:
            while not verdict.over and (lines := await source.next()) is not None:
                self._expect(row["state"])
                verdict.take(lines)
            if not verdict.over:
                source.check()
                verdict.end()
        except (BlobMissing, BlobCorrupt) as error:
            verdict.refuse("file_unreadable", f"The input file cannot be read: {error.code}.")
        return verdict

    async def _feed(self, row: Batch) -> None:
        """Feed from the row's `fed` on, to the end or until the row does not follow."""
        tasks, source = LineTasks(row), InputReader(self._blobs, row["input"])
        following = row["fed"]
        waiting: list[InputLine] = []
        while following < row["total"]:
            while not waiting:
                async with self._turns.feeding:
                    found = await source.next()
                if found is None:
                    raise BlobCorrupt(f"the file of {self._batch_id} has fewer requests than it had")
                self._expect("in_progress")
                waiting = [line for line in found if line.request >= following]
            if not await self._room(following, min(len(waiting), SLICE)):
                log.warning(
                    "batch %s: lines from %d on were not taken, feeding them again",
                    self._batch_id,
                    following,
                    extra={"event": "batch_fed_again", "batch_id": self._batch_id},
                )
                return
            async with self._turns.feeding:
                sent = await self._send(tasks, waiting[: self._open(following)])
            waiting = waiting[sent:]
            following += sent
        await self._wait(lambda newest: newest["fed"] >= following)

    def _open(self, following: int) -> int:
        """Return how many lines may be written now."""
        row = self._expect("in_progress")
        ended = int.from_bytes(row["ended"], "little").bit_count()
        return min(self._settings.batches.max_in_flight - (following - ended), SLICE)

    async def _room(self, following: int, wanted: int) -> bool:
        """Wait for room in the window, for many lines at once; False when the row does not follow.

        A row that has all that was written may stand as long as it likes: its lines take their time.
        """
        wanted = max(1, min(wanted, self._settings.batches.max_in_flight // 4))
        return await self._wait(
            lambda _: self._open(following) >= wanted, may_stand=lambda newest: newest["fed"] >= following
        )

    async def _send(self, tasks: LineTasks, lines: list[InputLine]) -> int:
        """Write the next lines, as many as go into one write; returns how many."""
        records: list[Record] = []
        size = 0
        for line in lines:
            record = await self._record(tasks, line)
            records.append(record)
            size += len(record.value or b"")
            if size >= SHIP_BYTES:
                break
            if not len(records) % TURN:
                await asyncio.sleep(0)
        self._expect("in_progress")
        await self._producer.send_batch({(self._tasks, self._home): records})
        metrics.BATCH_LINES_FED.inc(len(records))
        return len(records)

    async def _record(self, tasks: LineTasks, line: InputLine) -> Record:
        try:
            request = read(line.text, endpoint=tasks.endpoint)
        except BrokenLine as fault:
            message = f"Line {line.number}: {fault.message}"
            name = custom_id_of(line.text)
            return tasks.broken(line.request, name, message, code=fault.code, now_ms=self._clock())
        except LineError as fault:  # it was valid when the batch began
            raise BlobCorrupt(f"line {line.number} of the file of {self._batch_id} has changed: {fault}") from fault
        data = tasks.body(request)
        if len(data) <= self._settings.storage.inline_bytes:
            return tasks.record(line.request, request, data, now_ms=self._clock())
        name = f"tasks/{tasks.task_id(line.request)}"
        blob = await self._blobs.put(data, name=name, media_type=JSON)
        return tasks.record(line.request, request, blob, now_ms=self._clock())

    def _expect(self, state: str) -> Batch:
        row = self._row()
        if row is None or row["state"] != state:
            raise BatchChanged
        return row

    async def _wait(self, reached: Callable[[Batch], bool], *, may_stand: Callable[[Batch], bool] = _never) -> bool:
        """Wait until the row is as wanted; False when it has stood still for too long where it should not."""
        loop = asyncio.get_running_loop()
        first = row = self._row()
        since = loop.time()
        while row is not None and first is not None and row["state"] == first["state"]:
            if reached(row):
                return True
            if row["fed"] != first["fed"]:
                first, since, self._patience_s = row, loop.time(), self._stall_s
            if loop.time() - since > self._patience_s and not may_stand(row):
                self._patience_s = min(2 * self._patience_s, MAX_STALL_S)
                return False
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            row = self._row()
        raise BatchChanged
