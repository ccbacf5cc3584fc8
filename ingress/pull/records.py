"""The events by which an ingress speaks for a worker: it takes a task, gives it back, or brings its outcome."""

from __future__ import annotations

from core.kafka.producer import Record
from core.settings.models import Settings
from schemas import ids, topics
from schemas.codec import EVENT
from schemas.events import event
from schemas.headers import headers
from schemas.records import Event, Outcome, Status

Addressed = tuple[str, int, Record]


def claim(
    settings: Settings, row: Status, *, worker: str, lease_ms: int, retries: int | None, now_ms: int
) -> Addressed:
    """Propose that a worker holds the current attempt of a task."""
    return _addressed(
        settings,
        row,
        event(
            "claimed",
            at_ms=now_ms,
            task_id=row["id"],
            attempt=row["attempt"],
            worker=worker,
            lease_ms=lease_ms,
            lease_retries=retries,
        ),
    )


def release(settings: Settings, row: Status, *, worker: str, now_ms: int) -> Addressed:
    """Give a task back that a worker may hold and will not run."""
    return _addressed(
        settings,
        row,
        event("released", at_ms=now_ms, task_id=row["id"], attempt=row["attempt"], worker=worker),
    )


def finish(settings: Settings, row: Status, outcome: Outcome, *, now_ms: int) -> Addressed:
    """Bring the outcome of a task in the name of the worker that holds it."""
    return _addressed(
        settings,
        row,
        event(
            "finished",
            at_ms=now_ms,
            task_id=row["id"],
            attempt=row["attempt"],
            worker=row["worker"],
            outcome=outcome,
        ),
    )


def _addressed(settings: Settings, row: Status, what: Event) -> Addressed:
    described = headers(
        kind=what["kind"],
        ce_id=f"{row['id']}/{what['attempt']}/{what['kind']}",
        at_ms=what["at_ms"],
        queue=row["queue"],
        level=row["level"],
        attempt=what["attempt"],
    )
    record = Record(row["id"].encode(), EVENT.encode(what), described, what["at_ms"])
    return settings.topic(topics.events(row["level"])), ids.parse(row["id"]).partition, record
