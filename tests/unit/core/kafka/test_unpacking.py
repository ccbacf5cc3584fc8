"""Whatever a fetch holds, the records around it are read, and what cannot be read says where it lies and why."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.codec import zstd_encode
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.consumer.subscription_state import SubscriptionState
from hypothesis import given
from hypothesis import strategies as st

from core.kafka import codecs
from core.kafka.fetching import Fetched, PartitionRecords, patch_fetching, position_of, skip_unreadable
from core.kafka.record_format import Unpacked, Unread
from core.kafka.unpacking import Unpacking
from tests.support.record_batches import ENCODERS, FIRST_MS, HOSTILE, batch, record

TP = TopicPartition("topic", 0)
THREE = [record(n, b"k%d" % n, b"v%d" % n, [(b"h", b"1")]) for n in range(3)]
BAD_NAME = record(1, b"k1", b"v1", [(b"caf\xe9", b"1"), (b"h", b"2")])
CONTROL, TRANSACTION = 0x30, 0x10
ABORT, COMMIT = record(0, b"\0\0\0\0", b"\0\0\0\0\0\0"), record(0, b"\0\0\0\1", b"\0\0\0\0\0\0")


def unpacked(raw: bytes, begin: int = 0, **named: Any) -> tuple[list[Unpacked], int]:
    unpacking = Unpacking(raw, begin, **named)
    return list(unpacking), unpacking.position


def reason(one: Unpacked) -> str:
    assert isinstance(one.headers, Unread)
    return one.headers.reason


def offsets(found: list[Unpacked]) -> list[int]:
    return [one.offset for one in found]


@pytest.mark.parametrize("codec", [None, *ENCODERS])
def test_every_codec_is_read(codec: str | None) -> None:
    found, position = unpacked(batch(THREE, base=7, codec=codec), 7)
    assert [(one.offset, one.timestamp, one.key, one.value, list(one.headers)) for one in found] == [
        (7 + n, FIRST_MS, b"k%d" % n, b"v%d" % n, [("h", b"1")]) for n in range(3)
    ]
    assert position == 10


@pytest.mark.parametrize("codec", [None, *ENCODERS])
def test_a_header_name_that_is_not_utf_8_costs_its_record_alone(codec: str | None) -> None:
    found, position = unpacked(batch([THREE[0], BAD_NAME, THREE[2]], codec=codec) + batch(THREE, base=3))
    assert offsets(found) == [*range(6)]
    assert position == 6
    broken = found[1]
    assert "caf\\xe9 is not UTF-8" in reason(broken)
    assert (broken.key, broken.value, list(broken.headers)) == (b"k1", b"v1", [("caf\\xe9", b"1"), ("h", b"2")])
    assert not any(isinstance(one.headers, Unread) for one in (*found[:1], *found[2:]))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_broken_batch_costs_no_other(name: str) -> None:
    raw = batch(THREE) + HOSTILE[name] + batch(THREE, base=6)
    found, position = unpacked(raw)
    broken = [one for one in found if isinstance(one.headers, Unread)]
    assert len(broken) == 1
    assert name in reason(broken[0])
    assert position == 9
    assert offsets(found)[:3] == [0, 1, 2]
    assert offsets(found)[-3:] == [6, 7, 8]
    assert broken[0].headers.last == (3 if "format" in name else 5)  # type: ignore[attr-defined]


def test_what_cannot_even_be_cut_into_batches_is_passed_offset_by_offset() -> None:
    for raw in (b"x", b"\0" * 17, batch(THREE, length=1 << 30), batch(THREE, length=-5), batch(THREE, base=900)[:80]):
        found, position = unpacked(raw, 4)
        assert len(found) == 1
        assert reason(found[0])
        assert position == 5


def test_a_batch_that_is_cut_off_at_the_end_comes_with_the_next_fetch() -> None:
    found, position = unpacked(batch(THREE) + batch(THREE, base=3)[:-1])
    assert offsets(found) == [0, 1, 2]
    assert position == 3


def test_a_fetch_from_the_middle_of_a_batch() -> None:
    found, position = unpacked(batch([THREE[0], BAD_NAME, THREE[2]]), 2)
    assert offsets(found) == [2]
    assert position == 3


def test_a_batch_that_unpacks_to_a_thousand_times_its_size_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "MAX_BYTES", 1 << 20)
    bomb = bytes(zstd_encode(b"\0" * (8 << 20)))
    assert len(bomb) < 1_000
    found, position = unpacked(batch(THREE, codec="zstd", body=bomb))
    assert "more than 1 MiB" in reason(found[0])
    assert position == 3
    large = record(0, value=b"\0" * (1 << 19))
    for codec in ENCODERS:
        [one] = unpacked(batch([large], codec=codec))[0]
        assert len(one.value or b"") == 1 << 19


def test_transactions_leave_known_gaps() -> None:
    raw = (
        batch(THREE[:1])
        + batch(THREE, base=1, attributes=TRANSACTION, producer=5)
        + batch([ABORT], base=4, attributes=CONTROL, producer=5)
        + batch(THREE[:1], base=5, attributes=TRANSACTION, producer=5)
        + batch([COMMIT], base=6, attributes=CONTROL, producer=5)
    )
    found, position = unpacked(raw, aborted=[(5, 1)])
    assert [(one.offset, one.since) for one in found] == [(0, 0), (5, 1)]
    assert position == 7
    assert offsets(unpacked(raw, certain=True)[0]) == [0]


@given(st.data())
def test_no_change_of_any_bytes_raises_or_stands_still(data: st.DataObject) -> None:
    raw = bytearray(batch(THREE, codec=data.draw(st.sampled_from([None, *ENCODERS]))) + batch(THREE, base=3))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    found, position = unpacked(bytes(raw[: data.draw(st.integers(1, len(raw)))]))
    assert position > 0
    assert all(one.offset < position or isinstance(one.headers, Unread) for one in found)


@given(st.binary(max_size=200), st.sampled_from([None, *ENCODERS]))
def test_no_records_of_a_sound_batch_raise(body: bytes, codec: str | None) -> None:
    inner = body if codec is None else bytes(ENCODERS[codec][1](body))
    found, position = unpacked(batch(THREE, codec=codec, body=inner))
    assert position == 3
    assert all(0 <= one.offset < 3 for one in found)


def results(raw: bytes) -> tuple[FetchResult, Any]:
    """Give a fetch to aiokafka's own classes, with ours in their places."""
    patch_fetching()
    state = SubscriptionState()
    state.assign_from_user([TP])
    state.seek(TP, 0)
    records = fetcher.PartitionRecords(TP, fetcher.MemoryRecords(raw), [], 0, None, None, True, 1)
    return FetchResult(TP, assignment=state.subscription.assignment, partition_records=records, backoff=0), state


async def test_a_consumer_goes_on_behind_what_it_cannot_read() -> None:
    fetched, state = results(batch([THREE[0], BAD_NAME, THREE[2]]) + HOSTILE["codec 7"] + batch(THREE, base=6))
    got = fetched.getall(2)
    assert [one.offset for one in got] == [0, 1]
    got += fetched.getall()
    assert [one.offset for one in got] == [0, 1, 2, 3, 6, 7, 8]
    assert [one.offset for one in skip_unreadable(got)] == [0, 2, 6, 7, 8]
    assert position_of(SimpleNamespace(_subscription=state), TP) == 9


async def test_a_damaged_batch_is_fetched_once_more() -> None:
    damaged = batch(THREE, base=1, crc=1)
    fetched, state = results(batch(THREE[:1]) + damaged)
    assert [one.offset for one in fetched.getall()] == [0]
    assert position_of(SimpleNamespace(_subscription=state), TP) == 1
    again = PartitionRecords(TP, Fetched(damaged), [], 1, None, None, True, 1)
    assert [one.offset for one in again] == [1]
    assert again.next_fetch_offset == 4


def test_the_private_parts_of_aiokafka_are_where_they_are_replaced() -> None:
    routine = inspect.getsource(fetcher.Fetcher._proc_fetch_request)
    assert "MemoryRecords(part_data[-1])" in routine
    assert "PartitionRecords(" in routine
    assert "records.has_next()" in routine
    assert "records.size_in_bytes() > 0" in routine
    names = [*inspect.signature(PartitionRecords.__init__).parameters]
    mended = fetcher.PartitionRecords
    assert names == [
        "self",
        "tp",
        "records",
        "aborted_transactions",
        "fetch_offset",
        "key_deserializer",
        "value_deserializer",
        "check_crcs",
        "isolation_level",
    ]
    assert mended is PartitionRecords or [*inspect.signature(mended.__init__).parameters] == names
    assert "isolation_level" in inspect.signature(AIOKafkaConsumer.__init__).parameters
    assert asyncio.iscoroutinefunction(AIOKafkaConsumer.position)
