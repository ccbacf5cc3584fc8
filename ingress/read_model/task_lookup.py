"""Find a task by id: its row, or the task record before there is a row, then its bodies by their offsets."""

from __future__ import annotations

import time

from aiokafka import TopicPartition

from core.errors import NotFound, Unavailable
from core.kafka.log_reader import LogReader
from core.kafka.task_records import result_of, task_of
from core.settings.models import Settings
from core.storage.blobs import BlobMissing, BlobStore
from ingress.read_model.recent_writes import RecentWrites
from ingress.read_model.task_snapshot import TaskSnapshot, from_status, from_task
from ingress.read_model.task_view import TaskView
from ingress.waiting.waiters import Waiters
from schemas import ids, topics
from schemas.ids import TaskId
from schemas.records import TERMINAL, Result, Status, Task

OWN_WAIT_S = 2.0
"""Wait for the row of a task accepted here: milliseconds, unless the scheduler is behind."""
OTHER_WAIT_S = 1.0
RECENT_S = 15 * 60
"""An older task without a row does not exist: a scheduler that is this far behind raises alerts."""
CLOCK_SKEW_MS = 2_000


class TaskLookup:
    """Find tasks of every API, by id."""

    def __init__(
        self,
        settings: Settings,
        *,
        view: TaskView,
        log_reader: LogReader,
        blobs: BlobStore,
        waiters: Waiters,
        recent_writes: RecentWrites,
    ) -> None:
        self._settings = settings
        self._view = view
        self._log_reader = log_reader
        self._blobs = blobs
        self._waiters = waiters
        self._recent_writes = recent_writes

    async def find(self, text: str, *, owner: str | None, data: bool = True) -> TaskSnapshot:
        """Return a task with its bodies; raises NotFound for foreign and unknown ids, Unavailable without Kafka.

        For the owner None, which operators use, no id is foreign. Without `data` the request's body is not fetched, so
        that a poll reads no topic until there is a result.
        """
        task_id = self._identified(text)
        reading = await self._from_row(task_id, owner, data=data)
        return self._owned(text, owner, reading or await self._from_task(task_id, data=data))

    async def find_state(self, text: str, *, owner: str | None) -> TaskSnapshot:
        """Return a task without its bodies; raises as `find` does."""
        task_id = self._identified(text)
        row = await self._row_of(task_id)
        reading = await self._from_task(task_id, data=False) if row is None else from_status(row)
        return self._owned(text, owner, reading)

    def _identified(self, text: str) -> TaskId:
        try:
            task_id = ids.parse(text)
        except ids.IdError:
            raise _unknown(text) from None
        if task_id.partition >= self._settings.kafka.partitions:
            raise _unknown(text)
        return task_id

    def _owned(self, text: str, owner: str | None, reading: TaskSnapshot | None) -> TaskSnapshot:
        if reading is None and not self._view.caught_up:
            raise Unavailable("the read model has not caught up yet; try again in some seconds")
        if reading is None or owner not in (None, reading.owner):
            raise _unknown(text)
        return reading

    async def _row_of(self, task_id: TaskId) -> Status | None:
        """Return the row, waiting while it may still be missing; for a duplicate the row of the original."""
        key = str(task_id).encode()
        other_s = OTHER_WAIT_S if _is_recent(task_id) else 0
        seconds = other_s if self._recent_writes.offset_of(key) is None else OWN_WAIT_S
        row = await self._view.wait(key, seconds=seconds)
        if row is None or row["source_offset"] < 0:  # a cancel that the scheduler read before the task
            return None
        if row["duplicate_of"] is None:
            return row
        if row["error_code"] is not None:  # it was refused, so it never was a task
            raise _unknown(row["id"])
        return await self._view.wait(row["duplicate_of"].encode(), seconds=other_s)

    async def _from_row(self, task_id: TaskId, owner: str | None, *, data: bool) -> TaskSnapshot | None:
        row = await self._row_of(task_id)
        if row is None:
            return None
        key = row["id"].encode()
        if row["state"] not in TERMINAL and self._waiters.was_completed(key):
            # A client that received the result must find it here: the row follows the result within milliseconds.
            row = await self._view.wait_until(key, lambda found: found["state"] in TERMINAL, seconds=OWN_WAIT_S) or row
        reading = from_status(row)
        if owner in (None, row["owner"]):  # another tenant gets NotFound below: skip its bodies
            home = ids.parse(row["id"])
            if data:
                await self._add_data(home, reading, row["source_offset"])
            if row["result_offset"] is not None and row["state"] != "expired":
                await self._add_body(home, reading, row["result_offset"])
        return reading

    async def _from_task(self, task_id: TaskId, *, data: bool) -> TaskSnapshot | None:
        """Read the task record, by the remembered offset or by a search from the time in the id."""
        if not _is_recent(task_id):
            return None
        key = str(task_id).encode()
        tp = TopicPartition(self._settings.topic(topics.tasks(task_id.level)), task_id.partition)
        offset = self._recent_writes.offset_of(key)
        if offset is not None:
            found = await self._log_reader.read(tp, offset)
        else:
            found = await self._log_reader.find(tp, key, from_ms=task_id.time_s * 1000 - CLOCK_SKEW_MS)
        task = task_of(found, str(task_id))
        if task is None:
            return None
        reading = from_task(task, str(task_id))
        if data:
            reading.data = await self._data_of(task)
        return reading

    async def _add_data(self, task_id: TaskId, reading: TaskSnapshot, offset: int) -> None:
        tp = TopicPartition(self._settings.topic(topics.tasks(task_id.level)), task_id.partition)
        task = task_of(await self._log_reader.read(tp, offset), reading.id)
        if task is not None:
            reading.data = await self._data_of(task)

    async def _add_body(self, task_id: TaskId, reading: TaskSnapshot, offset: int) -> None:
        tp = TopicPartition(self._settings.topic(topics.results(task_id.level)), task_id.partition)
        result = result_of(await self._log_reader.read(tp, offset), reading.id)
        if result is None:
            return
        reading.content_type = result["content_type"]
        reading.usage = result["usage"]
        reading.body = result["body"]
        if result["body_ref"] is not None:
            try:
                reading.body = await self._blobs.get(result["body_ref"])
            except BlobMissing:
                reading.body = None  # its retention has ended; the other fields are still known

    async def _data_of(self, task: Task) -> bytes | str | None:
        if task["content_type"].startswith("multipart/"):
            return None  # a form with files, which a JSON object cannot show
        if task["data_ref"] is None:
            return task["data"]
        try:
            return await self._blobs.get(task["data_ref"])
        except BlobMissing:
            return None


async def result_body(blobs: BlobStore, result: Result) -> bytes | None:
    """Return the body of a result, from the object store when it is stored there; raises HeadraceError."""
    if result["body_ref"] is None:
        return result["body"]
    return await blobs.get(result["body_ref"])


def _unknown(text: str) -> NotFound:
    return NotFound(f"there is no task {text[:80]}")


def _is_recent(task_id: TaskId) -> bool:
    return abs(time.time() - task_id.time_s) < RECENT_S
