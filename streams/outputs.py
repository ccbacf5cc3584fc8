"""Records that follow from a transition, one function per topic. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from core.kafka.producer import Record
from core.prices import price_of, text
from core.settings.models import ModelSettings
from schemas.batches import Batch
from schemas.codec import BATCH, CONTROL, RESULT, STATUS, USAGE, WORK
from schemas.common import Usage
from schemas.headers import BATCH_ID, CALLBACK_EVENTS, headers
from schemas.records import Outcome, Result, Status
from schemas.usage import UsageRecord
from streams.state_machine.rows import is_early_cancel
from streams.state_machine.tasks import WorkEffect

NO_PRICES: Mapping[str, ModelSettings] = {}
NOTIFIED_EVENTS = frozenset(("start", "progress", "expired"))
"""Webhook events besides the outcome."""
ZERO_USAGE: Usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def status_record(row: Status, *, now_ms: int) -> Record:
    """Render the state record of a task."""
    is_task = row["duplicate_of"] is None and not is_early_cancel(row)
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
    if row["callback_url"] is not None and not NOTIFIED_EVENTS.isdisjoint(row["callback_events"]):
        described.append((CALLBACK_EVENTS, ",".join(row["callback_events"]).encode()))
    return Record(row["id"].encode(), STATUS.encode({**row, "updated_ms": now_ms}), described, now_ms)


def batch_record(batch: Batch, *, now_ms: int) -> Record:
    """Render the state record of a batch."""
    described = headers(
        kind=f"batch.{batch['state']}",
        ce_id=f"{batch['id']}/{batch['state']}/{now_ms}",
        at_ms=now_ms,
        queue=batch["queue"],
        level=1,
        owner=batch["owner"],
        deadline_ms=batch["expires_ms"],
    )
    return Record(batch["id"].encode(), BATCH.encode({**batch, "updated_ms": now_ms}), described, now_ms)


def work_record(row: Status, work: WorkEffect, *, now_ms: int, traceparent: bytes | None) -> Record:
    """Render the work record of the current attempt."""
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


def result_of(
    row: Status, outcome: Outcome | None, *, now_ms: int, prices: Mapping[str, ModelSettings] = NO_PRICES
) -> Result:
    """Return the result of a task that has ended, with its cost if the price table has its model."""
    usage = outcome["usage"] if outcome else None
    price = price_of(usage, prices.get(row["model"] or "")) if usage and prices else None
    return {
        "id": row["id"],
        "state": row["state"],
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
        "usage": usage,
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
        "cost": text(price.total) if price else None,
        "currency": price.currency if price else None,
    }


def result_record(result: Result, *, traceparent: bytes | None) -> Record:
    """Render a result for results.LEVEL."""
    at_ms = result["finished_ms"]
    described = headers(
        kind=f"result.{result['state']}",
        ce_id=result["id"],
        at_ms=at_ms,
        queue=result["queue"],
        level=result["level"],
        owner=result["owner"],
        model=result["model"],
        attempt=result["attempt"],
        traceparent=traceparent,
    )
    if result["batch_id"] is not None:
        described.append((BATCH_ID, result["batch_id"].encode()))
    return Record(result["id"].encode(), RESULT.encode(result), described, at_ms)


def cancel_record(row: Status, reason: str, *, now_ms: int) -> Record:
    """Render the control record by which dispatchers cancel a running call."""
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


def usage_of(result: Result) -> UsageRecord:
    """Return the usage of a result; zero tokens if the upstream reported none."""
    counted = result["usage"] or ZERO_USAGE
    return {
        "id": result["id"],
        "owner": result["owner"],
        "queue": result["queue"],
        "level": result["level"],
        "model": result["model"],
        "endpoint": result["endpoint"],
        "upstream": result["upstream"],
        "state": result["state"],
        "status_code": result["status_code"],
        "attempt": result["attempt"],
        **counted,
        "cost": result["cost"],
        "currency": result["currency"],
        "created_ms": result["created_ms"],
        "started_ms": result["started_ms"],
        "finished_ms": result["finished_ms"],
        "batch_id": result["batch_id"],
        "replay_of": result["replay_of"],
    }


def usage_record(result: Result) -> Record:
    """Render the usage record of a task; its timestamp is that of the result, also when it is written later."""
    at_ms = result["finished_ms"]
    described = headers(
        kind=f"usage.{result['state']}",
        ce_id=result["id"],
        at_ms=at_ms,
        queue=result["queue"],
        level=result["level"],
        owner=result["owner"],
        model=result["model"],
    )
    return Record(result["id"].encode(), USAGE.encode(usage_of(result)), described, at_ms)
