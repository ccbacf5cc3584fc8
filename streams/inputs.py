"""What the scheduler reads, decoded: new tasks, events, and what can be neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from schemas import ids
from schemas.codec import EVENT, TASK, SchemaError
from schemas.framing import FramingError
from schemas.headers import find, traceparent_of
from schemas.records import Event, Task
from schemas.slices import queue_number
from schemas.validation import Invalid, check_task

Headers = Sequence[tuple[str, bytes | None]]


class Submission(NamedTuple):
    """A valid new task with its identity."""

    task_id: str
    task: Task
    created_ms: int
    traceparent: bytes | None


class Poison(NamedTuple):
    """A record that no row can come of."""

    reason: str
    field: str | None


def timestamp_ms(message: Any) -> int:
    """Return a record's time; Faust gives seconds."""
    return int(message.timestamp * 1000)


MAX_TEXT = 1_000
HEADROOM_BYTES = 16_384
"""What a work, event or result record holds beside the body: a body that fits its own record must fit theirs."""


def read_task(message: Any, *, level: int, max_bytes: int) -> Submission | Poison:
    """Decode and check a record of tasks.LEVEL; the level of the topic counts, not the one inside."""
    if message.value is None:
        return Poison("a task record needs a value", None)
    if len(message.value) > max_bytes - HEADROOM_BYTES:
        return Poison(
            f"{len(message.value)} bytes are too many for a record; keep the body in the object store", "data"
        )
    try:
        task = TASK.decode(message.value)
        _add_key(task, message)
        if task["level"] != level:
            raise Invalid("level", f"level {task['level']} does not belong into this topic")
        check_task(task)
        task_id = task_identity(message, task, level=level)
    except (FramingError, SchemaError) as error:
        return Poison(str(error), None)
    except Invalid as error:
        return Poison(error.message, error.field)
    created_ms = task["created_ms"] or timestamp_ms(message)
    return Submission(task_id, task, created_ms, traceparent_of(message.headers))


def _add_key(task: Task, message: Any) -> None:
    """Take the key from the record's header `idempotency-key` when the task itself names none."""
    key = find(message.headers, "idempotency-key")
    if key is not None and task["idempotency_key"] is None:
        task["idempotency_key"] = key.decode("latin-1")


def task_identity(message: Any, task: Task, *, level: int) -> str:
    """Return the id given by the ingress, or derive one from where the record lies."""
    if task["id"] is None:
        return str(
            ids.from_record(
                queue_number=queue_number(task["queue"]),
                level=level,
                timestamp_ms=timestamp_ms(message),
                partition=message.partition,
                offset=message.offset,
            )
        )
    try:
        parsed = ids.parse(task["id"])
    except ids.IdError as error:
        raise Invalid("id", str(error)) from error
    if parsed.partition != message.partition or parsed.level != level:
        raise Invalid("id", f"{task['id']} names another home than partition {message.partition}")
    return str(parsed)


def read_event(message: Any, *, max_bytes: int) -> Event | Poison:
    """Decode a record of events.LEVEL; an outcome too large for a result record becomes a failure."""
    if message.value is None:
        return Poison("an event record needs a value", None)
    try:
        event = EVENT.decode(message.value)
    except (FramingError, SchemaError) as error:
        return Poison(str(error), None)
    outcome = event["outcome"]
    if outcome is not None:
        if len(message.value) > max_bytes - HEADROOM_BYTES:
            outcome["body"] = None
            outcome["error_code"] = "answer_too_large"
            outcome["error_message"] = f"the answer of {len(message.value)} bytes is too large for a record"
            outcome["status_code"] = 502
            outcome["retriable"] = False
        outcome["error_message"] = _short(outcome["error_message"])
    event["reason"] = _short(event["reason"])
    return event


def _short(text: str | None) -> str | None:
    return text if text is None else text[:MAX_TEXT]
