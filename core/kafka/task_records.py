"""Read the task record again, for its body, which is not part of the state record."""

from __future__ import annotations

from core.kafka.log_reader import LogRecord
from schemas.records import Task
from schemas.task_decoder import accepted
from schemas.topics import LEVELS
from schemas.validation import Invalid


def task_of(found: LogRecord | None) -> Task | None:
    """Return the task of a record of tasks.LEVEL in any of the accepted forms; None if it is not a task."""
    if found is None or found.value is None:
        return None
    try:
        return accepted(found.value, found.headers, level=int(found.topic.endswith(LEVELS[1])))
    except Invalid:
        return None
