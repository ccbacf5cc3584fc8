"""Dead letters: the record as it came, and where and why."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from core.dead_letters.record import partition_of, send_to_dead_letters
from core.kafka.record_format import Unread
from core.settings.models import Settings
from tests.support.dispatcher_doubles import MemoryProducer
from tests.support.waiting import eventually_async


def consumed(**changes: Any) -> Any:
    base = {
        "topic": "headrace.work.chat.online",
        "partition": 3,
        "offset": 17,
        "key": b"k",
        "value": b"\x00v",
        "headers": [("traceparent", b"00-1"), ("x-reason", b"forged"), ("odd", None)],
    }
    return SimpleNamespace(**(base | changes))


async def test_key_value_and_headers_are_copied_and_the_reason_added() -> None:
    producer = MemoryProducer()
    await send_to_dead_letters(producer, Settings(), consumed(), reason="no such thing", field="id", attempt=2)
    ((topic, partition, record),) = producer.written
    assert (topic, record.key, record.value) == ("headrace.dead-letters", b"k", b"\x00v")
    assert 0 <= partition < 4
    assert record.headers == [
        ("traceparent", b"00-1"),
        ("odd", None),
        ("x-reason", b"no such thing"),
        ("x-topic", b"headrace.work.chat.online"),
        ("x-partition", b"3"),
        ("x-offset", b"17"),
        ("x-attempt", b"2"),
        ("x-field", b"id"),
    ]


async def test_a_value_that_fits_only_just_is_left_where_it_is() -> None:
    producer = MemoryProducer()
    settings = Settings()
    large = b"x" * (settings.kafka.max_message_bytes - 100)
    await send_to_dead_letters(
        producer, settings, consumed(value=large, headers=[("big", b"y" * 100_000)]), reason="r" * 5000
    )
    record = producer.written[0][2]
    headers = dict(record.headers)
    assert record.value is None
    assert headers["x-attempt"] == b"0"
    assert int(headers["x-left-behind-bytes"]) == len(large)
    assert len(headers["x-reason"]) == 1000
    assert "big" not in headers


async def test_a_tombstone_can_be_dead_lettered() -> None:
    producer = MemoryProducer()
    await send_to_dead_letters(producer, Settings(), consumed(value=None, key=None, headers=()), reason="no value")
    assert producer.written[0][2].value is None


async def test_it_is_retried_until_kafka_accepts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.dead_letters.record.RETRY_S", 0.001)
    producer = MemoryProducer()
    producer.blocked = True
    sending = asyncio.create_task(send_to_dead_letters(producer, Settings(), consumed(), reason="r"))
    await eventually_async(lambda: producer.writes > 2, what="several tries")
    assert not sending.done()
    producer.blocked = False
    await sending
    assert len(producer.written) == 1


def test_dead_letters_are_partitioned_by_their_origin() -> None:
    partitions = {partition_of(consumed(partition=number)) for number in range(64)}
    assert partitions == {0, 1, 2, 3}


@pytest.mark.parametrize(("whole", "told"), [(False, b"19"), (True, None)])
async def test_what_could_not_be_read_says_how_far_it_reaches(whole: bool, told: bytes | None) -> None:
    producer = MemoryProducer()
    headers = Unread.because("broken", 19, [("caf\\xe9", b"1")], whole=whole)
    await send_to_dead_letters(producer, Settings(), consumed(headers=headers), reason=headers.reason)
    written = dict(producer.written[0][2].headers)
    assert (written["x-offset"], written.get("x-unread-to"), written["caf\\xe9"]) == (b"17", told, b"1")
