"""The records that follow from a step: pure rendering, one function per topic."""

from __future__ import annotations

from core.kafka.producer import Record
from schemas.codec import CONTROL, RESULT, STATUS, WORK
from schemas.headers import CALLBACK_EVENTS, headers
from schemas.records import Outcome, Result, State, Status
from streams.machine import Work
from streams.rows import cancelled_early

NEWS = frozenset(("start", "progress", "expired"))
"""What a callback can be told besides the outcome."""


def status_record(row: Status, *, now_ms: int) -> Record:
    """Render a row for the changelog."""
    is_task = row["duplicate_of"] is None and not cancelled_early(row)
    running = f"/{row['progress']}" if row["state"] == "processing" and row["progress"] else ""
    described = headers(
        kind=f"task.{row['state']}",
        ce_id=f"{row['id']}/{row['state']}/{row['attempt']}{running}",
        at_ms=now_ms,
        queue=row["queue"],
        level=row["level"],
        owner=row["owner"],
        deadline_ms=row["deadline_ms"],
        attempt=row["attempt"],
        created_ms=row["created_ms"] if is_task else None,
    )
    if row["callback_url"] is not None and not NEWS.isdisjoint(row["callback_events"]):
        described.append((CALLBACK_EVENTS, ",".join(row["callback_events"]).encode()))
    return Record(row["id"].encode(), STATUS.encode({**row, "updated_ms": now_ms}), described, now_ms)


def work_record(row: Status, work: Work, *, now_ms: int, traceparent: bytes | None) -> Record:
    """Render the current attempt for the inference consumers."""
    value = WORK.encode(
        {
            "id": row["id"],
            "queue": row["queue"],
            "level": row["level"],
            "endpoint": row["endpoint"],
            "mode": row["mode"],
            "attempt": row["attempt"],
            "data": work.data,
            "data_ref": work.data_ref,
            "model": row["model"],
            "owner": row["owner"],
            "created_ms": row["created_ms"],
            "deadline_ms": row["deadline_ms"],
            "run_timeout_ms": row["run_timeout_ms"],
            "content_type": row["content_type"],
        }
    )
    described = headers(
        kind="work",
        ce_id=f"{row['id']}/{row['attempt']}",
        at_ms=now_ms,
        queue=row["queue"],
        level=row["level"],
        owner=row["owner"],
        deadline_ms=row["deadline_ms"],
        attempt=row["attempt"],
        traceparent=traceparent,
    )
    return Record(row["id"].encode(), value, described, now_ms)


def result_record(row: Status, outcome: Outcome | None, *, now_ms: int, traceparent: bytes | None) -> Record:
    """Render the outcome of a row that has just ended."""
    state: State = row["state"]
    value: Result = {
        "id": row["id"],
        "state": state,
        "queue": row["queue"],
        "level": row["level"],
        "endpoint": row["endpoint"],
        "mode": row["mode"],
        "owner": row["owner"],
        "model": row["model"],
        "callback_url": row["callback_url"],
        "trace_id": row["trace_id"],
        "attempt": row["attempt"],
        "worker": row["worker"],
        "upstream": outcome["upstream"] if outcome else None,
        "status_code": row["status_code"] or 0,
        "body": outcome["body"] if outcome else None,
        "body_ref": outcome["body_ref"] if outcome else None,
        "content_type": outcome["content_type"] if outcome else "application/json",
        "error_code": row["error_code"],
        "error_message": row["error_message"],
        "usage": outcome["usage"] if outcome else None,
        "chunks": outcome["chunks"] if outcome else 0,
        "created_ms": row["created_ms"],
        "started_ms": row["started_ms"],
        "finished_ms": row["finished_ms"] or now_ms,
        "callback_events": row["callback_events"],
        "batch_id": row["batch_id"],
        "batch_line": row["batch_line"],
        "custom_id": row["custom_id"],
        "replay_of": row["replay_of"],
        "reply_topic": row["reply_topic"],
        "request_digest": row["request_digest"],
        "lost_workers": row["lost_workers"],
        "first_token_ms": outcome["first_token_ms"] if outcome else None,
        "cost": None,
        "currency": None,
    }
    described = headers(
        kind=f"result.{state}",
        ce_id=row["id"],
        at_ms=now_ms,
        queue=row["queue"],
        level=row["level"],
        owner=row["owner"],
        attempt=row["attempt"],
        traceparent=traceparent,
    )
    return Record(row["id"].encode(), RESULT.encode(value), described, now_ms)


def stop_record(row: Status, reason: str, *, now_ms: int) -> Record:
    """Render the order to end a call."""
    value = CONTROL.encode(
        {
            "kind": "cancel",
            "at_ms": now_ms,
            "level": row["level"],
            "id": row["id"],
            "reason": reason,
            "scheduler": None,
            "partitions": [],
            "workers": [],
        }
    )
    described = headers(kind="control.cancel", ce_id=f"{row['id']}/cancel", at_ms=now_ms, level=row["level"])
    return Record(row["id"].encode(), value, described, now_ms)
