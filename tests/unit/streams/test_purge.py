"""A purge: which tasks it cancels, slice after slice, and that it waits for those that are not processed yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from core.kafka.producer import Record
from schemas import purge as purges
from schemas.codec import EVENT
from schemas.events import event
from schemas.partitioning import queue_number
from schemas.records import Event
from streams import purge as purging
from streams.intake.decode import Submission
from streams.transaction import Transaction
from tests.support.memory_log import Log
from tests.support.records import claimed, task

EVENTS = ("t.events.online", 0)


def name(number: int, queue: str = "chat") -> str:
    return f"TASK-{queue_number(queue)}-0-C-260131120000-0000-{number:06d}"


def log_of(*queues: str) -> Log:
    log = Log()
    transaction = log.transaction()
    for number, queue in enumerate(queues):
        transaction.submission(
            Submission(name(number, queue), task(queue=queue), 1_000, None), partition=0, offset=number
        )
    log.commit(transaction)
    return log


def purge(log: Log, asked: Event, *, processed: int = 1_000, now_ms: int = 5_000) -> tuple[Transaction, Event | None]:
    """Fold one purge event; returns the event that it writes."""

    def rows_from(partition: int, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        rows = sorted((home[1].encode(), value) for home, value in log.rows.items() if home[0] == partition)
        yield from (row for row in rows if row[0] >= key)

    transaction = log.transaction(now_ms=now_ms)
    purging.purge(transaction, rows_from, asked, 0, processed=processed, level=0, now_ms=now_ms)
    written: list[Record] = transaction.records.get(EVENTS, [])
    log.commit(transaction)
    return transaction, EVENT.decode(written[0].value or b"") if written else None


def asking(tasks_end: int, **changes: Any) -> Event:
    data = purges.OffsetBounds(tasks_end).encode()
    return event("purge", at_ms=4_000, queue="chat", data=data) | changes  # type: ignore[return-value]


def states(log: Log) -> dict[str, str]:
    return {home[1]: log.row(home[1])["state"] for home in log.rows}


def test_what_waits_in_the_queue_ends_as_purged_with_one_result_each() -> None:
    log = log_of("chat", "other", "chat", "chat")
    transaction = log.transaction()
    transaction.event(claimed(name(2)), partition=0)
    log.commit(transaction)
    _, following = purge(log, asking(3))
    assert following is None
    assert states(log) == {name(0): "cancelled", name(1, "other"): "queued", name(2): "processing", name(3): "queued"}
    [result] = log.results
    assert (result["id"], result["error_code"], result["error_message"]) == (name(0), "cancelled", "purged")
    purge(log, asking(3))
    assert len(log.results) == 1


def test_slices_follow_each_other_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "CANCELS_PER_STEP", 2)
    log = log_of(*["chat"] * 5)
    asked: Event | None = asking(5)
    counts = []
    while asked is not None:
        transaction, asked = purge(log, asked)
        counts.append(len(transaction.rows))
    assert counts == [2, 2, 1]
    assert set(states(log).values()) == {"cancelled"}


def test_tasks_that_were_accepted_before_it_are_waited_for() -> None:
    log = log_of("chat")
    transaction, again = purge(log, asking(5), processed=4)
    assert again == asking(5)
    assert states(log) == {name(0): "queued"}
    assert not transaction.rows
    purge(log, asking(5), processed=4, now_ms=4_000 + purging.WAIT_MS)
    assert states(log) == {name(0): "cancelled"}, "but not for ever"


@pytest.mark.parametrize("broken", [{"queue": None}, {"data": None}, {"data": b"[]"}, {"data": b'{"tasks_end":"x"}'}])
def test_an_incomplete_event_is_counted(broken: dict[str, Any]) -> None:
    transaction, _ = purge(log_of("chat"), asking(1, **broken))
    assert transaction.reasons == {"unexpected_purge": 1}
