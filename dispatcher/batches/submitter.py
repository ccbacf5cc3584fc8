"""Submitter of one batch: validates its file, then submits its lines as tasks, with a bounded number in flight.

Its whole state is in the batch row: a new submitter continues at `fed`. A line that is written twice is one task,
because its id follows from the batch and the line. The scheduler drops a line after a gap; then the row does not
advance, and the submitter starts again from the row.
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
from dispatcher.batches.request_line import BrokenLine, LineError, custom_id_of, parse_line
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
"""Lines submitted at a time: some ten milliseconds of work."""
YIELD_EVERY = 50
"""Lines after which the event loop runs other tasks: online calls may run in the same process."""
SEND_BYTES = 2_097_152
STALL_TIMEOUT_S = 30.0
"""How long the row may stay behind the written lines."""
MAX_STALL_TIMEOUT_S = 480.0
RETRY_DELAY_S = 1.0
POLL_INTERVAL_S = 1.0


def _never(_: Batch) -> bool:
    return False


class BatchChanged(Exception):
    """The row has left the expected state."""


def needs_submission(row: Batch) -> bool:
    """Return whether a batch needs a submitter: to be validated, submitted, or counted when it was stopped early."""
    match row["state"]:
        case "validating":
            return True
        case "in_progress":
            return row["fed"] < row["total"]
        case _:
            return row["total"] == 0


class FairShare:
    """How many submitters of a process work at once: each holds a part of a file, and all share one event loop."""

    def __init__(self) -> None:
        self.validating = asyncio.Semaphore(2)
        self.submitting = asyncio.Semaphore(4)


class BatchSubmitter:
    """Submits one batch until its row leaves in_progress."""

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
        """Prepare to submit.

        Args:
            row: returns the newest row of the batch, None once it has ended.
            changed: set whenever the row may have changed; only this submitter clears it.
            uncountable: called with the id of a stopped batch whose lines cannot be counted.
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
        """Return when there is nothing left to submit; retries while Kafka or the object store is unavailable."""
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
                    "cannot submit the lines of batch %s, will retry: %s",
                    self._batch_id,
                    error.message,
                    extra={"event": "batch_submit_failed", "batch_id": self._batch_id},
                )
                await asyncio.sleep(RETRY_DELAY_S if isinstance(error, Unavailable) else self._initial_timeout_s)

    async def _validate(self, row: Batch) -> None:
        validator = await self._validated(row)
        if validator.errors:
            await self._report(row, "batch_invalid", change(errors=validator.errors))
        else:
            await self._report(row, "batch_validated", change(total=validator.total))
        # The event is durable; the scheduler has to read it.
        await self._wait(_never)

    async def _count(self, row: Batch) -> bool:
        """Count the lines of a batch that was stopped early, for its error file; False when that is impossible."""
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
        """Submit from the row's `fed` on, to the end or until the row does not advance."""
        tasks, source = LineTasks(row), InputReader(self._blobs, row["input"])
        submitted = row["fed"]
        waiting: list[InputLine] = []
        while submitted < row["total"]:
            while not waiting:
                async with self._fair_share.submitting:
                    found = await source.next_lines()
                if found is None:
                    raise BlobCorrupt(f"the file of {self._batch_id} has fewer requests than at its validation")
                self._current("in_progress")
                waiting = [line for line in found if line.request >= submitted]
            if not await self._wait_for_window(submitted, min(len(waiting), MAX_LINES_PER_WRITE)):
                log.warning(
                    "batch %s: lines from %d on were not accepted, submitting them again",
                    self._batch_id,
                    submitted,
                    extra={"event": "batch_resubmitted", "batch_id": self._batch_id},
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
        """Wait until several lines may be written; False when the row does not advance.

        A row that has all written lines may stay unchanged for any time: its lines are running.
        """
        wanted = max(1, min(wanted, self._settings.batches.max_in_flight // 4))
        return await self._wait(
            lambda _: self._window_left(submitted) >= wanted, may_stall=lambda newest: newest["fed"] >= submitted
        )

    async def _send(self, tasks: LineTasks, lines: list[InputLine]) -> int:
        """Write the next lines, as many as fit into one write; returns how many."""
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
            request = parse_line(line.text, endpoint=tasks.endpoint)
        except BrokenLine as fault:
            message = f"Line {line.number}: {fault.message}"
            name = custom_id_of(line.text)
            return tasks.broken(line.request, name, message, code=fault.code, now_ms=self._clock())
        except LineError as fault:  # it was valid when the batch was validated
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
        """Wait until a condition of the row is true; False when the row has stalled and may not."""
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
