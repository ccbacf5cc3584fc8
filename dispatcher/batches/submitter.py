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
from dispatcher.batches.input_reader import InputLine, InputReader
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

MAX_LINES_PER_WRITE = 200
"""Lines made tasks at a time: some ten milliseconds of work."""
YIELD_EVERY = 50
"""Lines after which others have their turn: online calls may run in the same process."""
SEND_BYTES = 2_097_152
STALL_TIMEOUT_S = 30.0
"""How long the row may stand still below what was written."""
MAX_STALL_TIMEOUT_S = 480.0
RETRY_DELAY_S = 1.0
POLL_INTERVAL_S = 1.0


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
        self.submitting = asyncio.Semaphore(4)


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
        fair_share: FairShare,
        uncountable: Callable[[str], None] = lambda _: None,
        clock: Clock = epoch_ms,
        stall_timeout_s: float = STALL_TIMEOUT_S,
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
        self._fair_share = fair_share
        self._uncountable = uncountable
        self._clock = clock
        self._initial_timeout_s = stall_timeout_s
        self._timeout_s = stall_timeout_s
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
                    await self._submit(row)
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
                await asyncio.sleep(RETRY_DELAY_S if isinstance(error, Unavailable) else self._initial_timeout_s)

    async def _validate(self, row: Batch) -> None:
        validator = await self._validated(row)
        if validator.errors:
            await self._report(row, "batch_invalid", change(errors=validator.errors))
        else:
            await self._report(row, "batch_validated", change(total=validator.total))
        # The word is durable; what is left is that the scheduler reads it.
        await self._wait(_never)

    async def _count(self, row: Batch) -> bool:
        """Count the lines of a batch that was stopped before that: they are all told of; False when that cannot be."""
        validator = await self._validated(row)
        if validator.errors:
            return False
        await self._report(row, "batch_validated", change(total=validator.total))
        await self._wait(lambda newest: newest["total"] > 0)
        return True

    async def _report(self, row: Batch, kind: EventKind, update: BatchChange) -> None:
        report = batch_progress_event(self._settings.kafka.topic_prefix, row, kind, update, at_ms=self._clock())
        await self._producer.send(*report)

    async def _validated(self, row: Batch) -> Validator:
        async with self._fair_share.validating:
            return await self._read_and_validate(row)

    async def _read_and_validate(self, row: Batch) -> Validator:
        batches = self._settings.batches
        named = LineTasks(row).names_model
        validator = Validator(batches, endpoint=row["endpoint"], one_model=batches.enforce_model and not named)
        if row["input"]["size"] > batches.max_bytes:
            validator.reject("file_too_large", f"The file is larger than {batches.max_bytes} bytes.")
            return validator
        source = InputReader(self._blobs, row["input"])
        try:
            while not validator.done and (lines := await source.next_lines()) is not None:
                self._current(row["state"])
                validator.add(lines)
            if not validator.done:
                source.verify_digest()
                validator.finish()
        except (BlobMissing, BlobCorrupt) as error:
            validator.reject("file_unreadable", f"The input file cannot be read: {error.code}.")
        return validator

    async def _submit(self, row: Batch) -> None:
        """Feed from the row's `fed` on, to the end or until the row does not follow."""
        tasks, source = LineTasks(row), InputReader(self._blobs, row["input"])
        submitted = row["fed"]
        waiting: list[InputLine] = []
        while submitted < row["total"]:
            while not waiting:
                async with self._fair_share.submitting:
                    found = await source.next_lines()
                if found is None:
                    raise BlobCorrupt(f"the file of {self._batch_id} has fewer requests than it had")
                self._current("in_progress")
                waiting = [line for line in found if line.request >= submitted]
            if not await self._wait_for_window(submitted, min(len(waiting), MAX_LINES_PER_WRITE)):
                log.warning(
                    "batch %s: lines from %d on were not taken, feeding them again",
                    self._batch_id,
                    submitted,
                    extra={"event": "batch_fed_again", "batch_id": self._batch_id},
                )
                return
            async with self._fair_share.submitting:
                sent = await self._send(tasks, waiting[: self._window_left(submitted)])
            waiting = waiting[sent:]
            submitted += sent
        await self._wait(lambda newest: newest["fed"] >= submitted)

    def _window_left(self, submitted: int) -> int:
        """Return how many lines may be written now."""
        row = self._current("in_progress")
        ended = int.from_bytes(row["ended"], "little").bit_count()
        return min(self._settings.batches.max_in_flight - (submitted - ended), MAX_LINES_PER_WRITE)

    async def _wait_for_window(self, submitted: int, wanted: int) -> bool:
        """Wait for room in the window, for many lines at once; False when the row does not follow.

        A row that has all that was written may stand as long as it likes: its lines take their time.
        """
        wanted = max(1, min(wanted, self._settings.batches.max_in_flight // 4))
        return await self._wait(
            lambda _: self._window_left(submitted) >= wanted, may_stall=lambda newest: newest["fed"] >= submitted
        )

    async def _send(self, tasks: LineTasks, lines: list[InputLine]) -> int:
        """Write the next lines, as many as go into one write; returns how many."""
        records: list[Record] = []
        size = 0
        for line in lines:
            record = await self._record(tasks, line)
            records.append(record)
            size += len(record.value or b"")
            if size >= SEND_BYTES:
                break
            if not len(records) % YIELD_EVERY:
                await asyncio.sleep(0)
        self._current("in_progress")
        await self._producer.send_batch({(self._tasks, self._home): records})
        metrics.BATCH_LINES_SUBMITTED.inc(len(records))
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

    def _current(self, state: str) -> Batch:
        row = self._row()
        if row is None or row["state"] != state:
            raise BatchChanged
        return row

    async def _wait(self, reached: Callable[[Batch], bool], *, may_stall: Callable[[Batch], bool] = _never) -> bool:
        """Wait until the row is as wanted; False when it has stood still for too long where it should not."""
        loop = asyncio.get_running_loop()
        first = row = self._row()
        since = loop.time()
        while row is not None and first is not None and row["state"] == first["state"]:
            if reached(row):
                return True
            if row["fed"] != first["fed"]:
                first, since, self._timeout_s = row, loop.time(), self._initial_timeout_s
            if loop.time() - since > self._timeout_s and not may_stall(row):
                self._timeout_s = min(2 * self._timeout_s, MAX_STALL_TIMEOUT_S)
                return False
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_INTERVAL_S):
                    await self._changed.wait()
            row = self._row()
        raise BatchChanged
