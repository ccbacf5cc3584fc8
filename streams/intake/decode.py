"""Decodes the inputs of the scheduler: new tasks, events, and records that are neither."""

from __future__ import annotations

from typing import Any, NamedTuple

from schemas import ids
from schemas.codec import EVENT, SchemaError
from schemas.framing import FramingError
from schemas.partitioning import queue_number
from schemas.records import Event, Queue, Task
from schemas.task_decoder import decode_task
from schemas.validation import Invalid, check_task
from streams.intake.trust import TrustPolicy, validate_direct_task
from streams.state_machine.batch_rows import decode_proposal

TRUST_ALL = TrustPolicy()


class Submission(NamedTuple):
    """A valid new task with its identity."""

    task_id: str
    task: Task
    created_ms: int
    traceparent: bytes | None
    direct: bool = False
    """Whether a producer wrote it to Kafka directly, not through an API."""


class InvalidRecord(NamedTuple):
    """A record that cannot be processed, with the reason and the invalid field."""

    reason: str
    field: str | None


def timestamp_ms(message: Any) -> int:
    """Return the timestamp of a record: Faust uses seconds, and None for a record without one."""
    return int((message.timestamp or 0) * 1000)


MAX_TEXT = 1_000
HEADROOM_BYTES = 16_384
"""Room for the other fields of a work, event or result record: a body that fits its task record must fit those."""


def read_task(
    message: Any, *, level: int, max_bytes: int, trust: TrustPolicy = TRUST_ALL
) -> Submission | InvalidRecord:
    """Decode and validate a record of tasks.LEVEL; the level of the topic applies, not the one in the record."""
    value, headers = message.value, message.headers or ()
    if value is None:
        return InvalidRecord("a task record needs a value", "value")
    if len(value) > max_bytes - HEADROOM_BYTES:
        limit = max_bytes - HEADROOM_BYTES
        return InvalidRecord(
            f"the record has {len(value)} bytes, the limit is {limit}; submit larger bodies over HTTP", "data"
        )
    try:
        decoded = decode_task(value, headers, level=level)
        task = decoded.task
        if task["level"] != level:
            raise Invalid("level", f"level {task['level']} is not the level of this topic")
        is_internal = decoded.is_internal and trust.is_signed(value, headers)
        if not is_internal:
            validate_direct_task(task, headers, trust, timestamp_ms=timestamp_ms(message))
        check_task(task)
        task_id = task_identity(message, task, level=level)
    except Invalid as error:
        return InvalidRecord(error.message, error.field)
    created_ms = task["created_ms"] or timestamp_ms(message)
    return Submission(task_id, task, created_ms, decoded.traceparent, not is_internal)


def with_queue_defaults(submission: Submission, queue: Queue | None) -> Submission | InvalidRecord:
    """Apply the defaults of the queue to a task; an unregistered queue makes the record invalid."""
    if queue is None:
        return InvalidRecord(f"queue {submission.task['queue']} is not registered", "queue")
    if not submission.task["retention_ms"]:
        submission.task["retention_ms"] = queue["retention_ms"] or 0
    return submission


def task_identity(message: Any, task: Task, *, level: int) -> str:
    """Return the id given by the ingress, or derive one from the record's position."""
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
        raise Invalid("id", f"the id {task['id']} belongs to another partition than {message.partition}")
    return str(parsed)


def read_event(message: Any, *, max_bytes: int) -> Event | InvalidRecord:
    """Decode a record of events.LEVEL; an outcome that is too large for a result record becomes a failure."""
    if message.value is None:
        return InvalidRecord("an event record needs a value", None)
    try:
        event = EVENT.decode(message.value)
        if event["kind"] == "batch_created":
            decode_proposal(event, partition=message.partition, max_bytes=max_bytes // 4)
    except (FramingError, SchemaError) as error:
        return InvalidRecord(str(error), None)
    except Invalid as error:
        return InvalidRecord(error.message, error.field)
    outcome = event["outcome"]
    if outcome is not None:
        if len(message.value) > max_bytes - HEADROOM_BYTES:
            outcome["body"] = None
            outcome["error_code"] = "answer_too_large"
            outcome["error_message"] = f"the response of {len(message.value)} bytes is too large for a record"
            outcome["status_code"] = 502
            outcome["retriable"] = False
        outcome["error_message"] = _short(outcome["error_message"])
    event["reason"] = _short(event["reason"])
    return event


def _short(text: str | None) -> str | None:
    return text if text is None else text[:MAX_TEXT]
