"""Event records: which topic, partition, key and headers each writer uses."""

from __future__ import annotations

from schemas.codec import EVENT
from schemas.events import (
    batch_progress_event,
    batch_request_event,
    batch_resume_event,
    cancel_event,
    change,
    event,
    purge_continued,
    purge_event,
    scheduler_event,
    task_event,
    worker_events,
)
from schemas.headers import find, traceparent_of
from schemas.ids import parse
from schemas.kafka_record import AddressedRecord
from schemas.purge import OffsetBounds
from tests.support.batch_doubles import HOME, batch_row
from tests.support.dispatcher_doubles import work
from tests.support.records import task_id

TRACE = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"


def header(item: AddressedRecord, name: str) -> str | None:
    """Return a header as text."""
    value = find(item.record.headers, name)
    return None if value is None else value.decode()


def type_and_id(item: AddressedRecord) -> tuple[str | None, str | None]:
    """Return the type and id of the CloudEvent."""
    return header(item, "ce_type"), header(item, "ce_id")


def test_a_worker_reports_to_the_partition_of_its_task() -> None:
    one = work(id=task_id(), attempt=2, queue="chat", level=0)
    happened = event("progress", at_ms=7, task_id=one["id"], attempt=2, worker="w", progress=30)
    item = task_event("hr.", one, happened, partition=4, traceparent=TRACE)
    assert item[:2] == ("hr.events.online", 4)
    assert (item.record.key, item.record.timestamp_ms) == (one["id"].encode(), 7)
    assert type_and_id(item) == ("io.headrace.progress", f"{one['id']}/2/progress/30")
    assert [header(item, name) for name in ("x-queue", "x-level", "x-attempt")] == ["chat", "0", "2"]
    assert traceparent_of(item.record.headers) == TRACE
    assert EVENT.decode(item.record.value or b"") == happened


def test_every_scheduler_receives_a_heartbeat() -> None:
    items = list(worker_events("", "heartbeat", partitions=2, worker="w", at_ms=7, running=1, upstreams_up=3))
    assert [item[:2] for item in items] == [
        ("events.online", 0),
        ("events.online", 1),
        ("events.offline", 0),
        ("events.offline", 1),
    ]
    assert {type_and_id(item) for item in items} == {("io.headrace.heartbeat", "w/7/heartbeat")}


def test_a_scheduler_writes_to_its_own_input() -> None:
    item = scheduler_event("", event("worker_lost", at_ms=7, worker="w"), level=1, partition=3, key="w")
    assert (item[:2], item.record.key) == (("events.offline", 3), b"w")
    assert type_and_id(item) == ("io.headrace.event.worker_lost", "w/worker_lost/0/7")
    assert header(item, "x-attempt") is None
    due = scheduler_event("", event("retry_due", at_ms=7, task_id="TASK-1", attempt=2), level=0, partition=3)
    assert (due.record.key, header(due, "x-attempt")) == (b"TASK-1", "2")


def test_a_cancel_goes_to_the_partition_of_its_task() -> None:
    identity = parse(task_id())
    item = cancel_event("", identity, owner="acme", reason="changed my mind", at_ms=7)
    assert item[:2] == ("events.online", identity.partition)
    assert type_and_id(item) == ("io.headrace.event.cancel", f"{identity}/cancel")
    assert header(item, "x-owner") == "acme"


def test_batch_events_go_to_the_partition_of_their_batch() -> None:
    row = batch_row({"uri": "file:///x", "size": 1, "sha256": "0"})
    asked = event("batch_cancel", at_ms=7, task_id=row["id"], owner=row["owner"], queue=row["queue"])
    items = [
        batch_request_event("", asked),
        batch_progress_event("", row, "batch_validated", change(total=3), at_ms=7),
        batch_resume_event("", {**row, "ending": "expired"}, at_ms=7),
        batch_resume_event("", {**row, "ending": "cancelled"}, at_ms=7),
    ]
    assert {item[:2] for item in items} == {("events.offline", HOME)}
    assert [type_and_id(item) for item in items] == [
        ("io.headrace.event.batch_cancel", f"{row['id']}/batch_cancel"),
        ("io.headrace.batch_validated", f"{row['id']}/batch_validated/7"),
        ("io.headrace.event.batch_due", f"{row['id']}/batch_due/7"),
        ("io.headrace.event.batch_cancel", f"{row['id']}/batch_cancel/7"),
    ]


def test_a_purge_keeps_the_time_of_its_request() -> None:
    item = purge_event("", "chat", OffsetBounds(9), level=0, partition=2, at_ms=7)
    asked = EVENT.decode(item.record.value or b"")
    assert (item[:2], type_and_id(item)) == (("events.online", 2), ("io.headrace.event.purge", "chat/purge/7/2"))
    again = purge_continued("", asked, OffsetBounds(9, "TASK-1"), level=0, partition=2, now_ms=99)
    assert type_and_id(again) == ("io.headrace.event.purge", "chat/purge/7/TASK-1")
    assert (again.record.timestamp_ms, EVENT.decode(again.record.value or b"")["at_ms"]) == (99, 7)
