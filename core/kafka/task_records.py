"""Decode task and result records that were looked up by their offset, for what is not part of the state record."""

from __future__ import annotations

from core.kafka.log_reader import LogRecord
from schemas import ids
from schemas.codec import RESULT, SchemaError
from schemas.framing import FramingError
from schemas.partitioning import queue_number
from schemas.records import Result, Task
from schemas.task_decoder import accepted
from schemas.topics import LEVELS
from schemas.validation import Invalid


def task_of(found: LogRecord | None, task_id: str) -> Task | None:
    """Return a task from its record in tasks.LEVEL, in any of the accepted forms.

    None if the record is not that task: a topic that was re-created has another one at the same offset, perhaps of
    another tenant.
    """
    if found is None or found.value is None:
        return None
    try:
        task = accepted(found.value, found.headers, level=int(found.topic.endswith(LEVELS[1])))
        return task if _id_of(found, task) == task_id else None
    except (Invalid, ids.IdError):
        return None


def result_of(found: LogRecord | None, task_id: str) -> Result | None:
    """Return a result from its record in results.LEVEL; None if the record is not the result of that task."""
    if found is None or found.value is None:
        return None
    try:
        result = RESULT.decode(found.value)
    except (FramingError, SchemaError):
        return None
    return result if result["id"] == task_id else None


def _id_of(found: LogRecord, task: Task) -> str:
    """Return the id of a task, which follows from the place of its record when it has none."""
    if task["id"] is not None:
        return str(ids.parse(task["id"]))
    return str(
        ids.from_record(
            queue_number=queue_number(task["queue"]),
            level=task["level"],
            timestamp_ms=found.timestamp,
            partition=found.partition,
            offset=found.offset,
        )
    )
