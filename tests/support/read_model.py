"""The read model over its real store, fed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiokafka import ConsumerRecord, TopicPartition

from core.kafka.producer import Record
from core.settings.models import Settings
from ingress.read_model.task_view import TaskView
from schemas.records import Status
from streams.outputs import status_record

TP = TopicPartition("headrace.status.online", 0)


@contextmanager
def open_view(folder: Path) -> Iterator[TaskView]:
    """Give a read model without Kafka."""
    view = TaskView(Settings(), folder=folder, name="test")
    view._store = view._open_store()
    try:
        yield view
    finally:
        view._store.close()


def emptied(view: TaskView) -> TaskView:
    """Remove all that a read model holds: to open another one takes longer than most tests of it."""
    store = view._store
    assert store is not None
    for key in [*store.keys()]:
        del store[key]
    return view


def record_of(row: Status, *, offset: int = 0) -> ConsumerRecord[bytes, bytes]:
    """Return the record that a scheduler writes for a row."""
    return consumed(status_record(row, now_ms=1_000), offset)


def removed(task_id: str, *, offset: int = 0) -> ConsumerRecord[bytes, bytes]:
    """Return the record that removes a row."""
    return consumed(Record(task_id.encode(), None, [], 1_000), offset)


def consumed(record: Record, offset: int) -> ConsumerRecord[bytes, bytes]:
    """Return a record as a reader finds it."""
    return ConsumerRecord(
        TP.topic, TP.partition, offset, 0, 0, record.key, record.value, 0, 0, 0, tuple(record.headers)
    )
