"""Put a reading together: the row, or the task record before there is one, then the bodies by their positions."""

from __future__ import annotations

import time

from core.errors import NotFound, Unavailable
from core.kafka.task_records import task_of
from core.storage.blobs import BlobMissing
from ingress.read_model.task_snapshot import TaskSnapshot, of_row, of_task
from ingress.runtime import Services
from schemas import ids, topics
from schemas.codec import RESULT, SchemaError
from schemas.framing import FramingError
from schemas.ids import TaskId
from schemas.records import TERMINAL, Status, Task

OWN_WAIT_S = 2.0
"""A task accepted here has its row within milliseconds, unless the scheduler is behind."""
OTHER_WAIT_S = 1.0
YOUNG_S = 15 * 60
"""An older task that has no row does not exist: no scheduler is this far behind unnoticed."""
CLOCK_SKEW_MS = 2_000


async def find_task(services: Services, text: str, *, owner: str | None, data: bool = True) -> TaskSnapshot:
    """Return all there is to know of a task; raises NotFound for foreign and unknown ids, Unavailable without Kafka.

    For the owner None, which stands for operators, no id is foreign. Without `data` the request's body is not fetched:
    who only polls costs no look-up until there is a result.
    """
    task_id = _identified(services, text)
    reading = await _from_row(services, task_id, owner, data=data)
    return _owned(services, text, owner, reading or await _from_task(services, task_id, data=data))


async def find_standing(services: Services, text: str, *, owner: str | None) -> TaskSnapshot:
    """Return how a task stands, without its bodies; raises as find_task does."""
    task_id = _identified(services, text)
    row = await _row_of(services, task_id)
    reading = await _from_task(services, task_id, data=False) if row is None else of_row(row)
    return _owned(services, text, owner, reading)


def _identified(services: Services, text: str) -> TaskId:
    try:
        task_id = ids.parse(text)
    except ids.IdError:
        raise _unknown(text) from None
    if task_id.partition >= services.settings.kafka.partitions:
        raise _unknown(text)
    return task_id


def _owned(services: Services, text: str, owner: str | None, reading: TaskSnapshot | None) -> TaskSnapshot:
    if reading is None and not services.view.caught_up:
        raise Unavailable("the read model has not caught up yet; try again in some seconds")
    if reading is None or owner not in (None, reading.owner):
        raise _unknown(text)
    return reading


def _unknown(text: str) -> NotFound:
    return NotFound(f"there is no task {text[:80]}")


async def _row_of(services: Services, task_id: TaskId) -> Status | None:
    """Return the row, waiting for it while it can still be on its way; that of the first for a twin."""
    key = str(task_id).encode()
    other_s = OTHER_WAIT_S if _young(task_id) else 0
    seconds = other_s if services.accepted_at(key) is None else OWN_WAIT_S
    row = await services.view.wait(key, seconds=seconds)
    if row is None or row["source_offset"] < 0:  # a cancel that the scheduler read before the task
        return None
    if row["duplicate_of"] is None:
        return row
    if row["error_code"] is not None:  # it was refused, so it never was a task
        raise _unknown(row["id"])
    return await services.view.wait(row["duplicate_of"].encode(), seconds=other_s)


async def _from_row(services: Services, task_id: TaskId, owner: str | None, *, data: bool) -> TaskSnapshot | None:
    row = await _row_of(services, task_id)
    if row is None:
        return None
    key = row["id"].encode()
    if row["state"] not in TERMINAL and services.waiters.answered(key):
        # Whoever was given the outcome must find it here: the row follows the result within milliseconds.
        row = await services.view.until(key, lambda found: found["state"] in TERMINAL, seconds=OWN_WAIT_S) or row
    reading = of_row(row)
    if owner in (None, row["owner"]):  # for anybody else the bodies are not even read
        home = ids.parse(row["id"])
        if data:
            await _add_data(services, home, reading, row["source_offset"])
        if row["result_offset"] is not None and row["state"] != "expired":
            await _add_body(services, home, reading, row["result_offset"])
    return reading


async def _from_task(services: Services, task_id: TaskId, *, data: bool) -> TaskSnapshot | None:
    """Read the task record itself, by the position kept here or by a search from the time in the id."""
    if not _young(task_id):
        return None
    key = str(task_id).encode()
    tp = services.topic_partition(topics.tasks(task_id.level), task_id.partition)
    offset = services.accepted_at(key)
    if offset is not None:
        found = await services.lookup.read(tp, offset)
    else:
        found = await services.lookup.find(tp, key, from_ms=task_id.time_s * 1000 - CLOCK_SKEW_MS)
    task = task_of(found)
    if task is None:
        return None
    reading = of_task(task, str(task_id))
    if data:
        reading.data = await _data_of(services, task)
    return reading


def _young(task_id: TaskId) -> bool:
    return abs(time.time() - task_id.time_s) < YOUNG_S


async def _add_data(services: Services, task_id: TaskId, reading: TaskSnapshot, offset: int) -> None:
    tp = services.topic_partition(topics.tasks(task_id.level), task_id.partition)
    task = task_of(await services.lookup.read(tp, offset))
    if task is not None and task["id"] in (None, reading.id):  # a topic that was made anew holds something else there
        reading.data = await _data_of(services, task)


async def _add_body(services: Services, task_id: TaskId, reading: TaskSnapshot, offset: int) -> None:
    tp = services.topic_partition(topics.results(task_id.level), task_id.partition)
    found = await services.lookup.read(tp, offset)
    if found is None or found.value is None:
        return
    try:
        result = RESULT.decode(found.value)
    except (FramingError, SchemaError):
        return
    if result["id"] != reading.id:
        return
    reading.content_type = result["content_type"]
    reading.usage = result["usage"]
    reading.body = result["body"]
    if result["body_ref"] is not None:
        try:
            reading.body = await services.blobs.get(result["body_ref"])
        except BlobMissing:
            reading.body = None  # its retention has ended; the rest of the task still stands


async def _data_of(services: Services, task: Task) -> bytes | str | None:
    if task["content_type"].startswith("multipart/"):
        return None  # a form with files in it, which no JSON object can show
    if task["data_ref"] is None:
        return task["data"]
    try:
        return await services.blobs.get(task["data_ref"])
    except BlobMissing:
        return None
