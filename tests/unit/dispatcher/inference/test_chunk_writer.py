"""Chunk records: first token at once, numbered without a gap, and a gap exactly where something is missing."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.settings.models import Settings
from dispatcher.inference import chunk_writer as module
from dispatcher.inference.chunk_writer import ChunkWriter, seconds_to_next_flush
from schemas.codec import CHUNK
from schemas.records import Chunk
from tests.support.clocks import MillisecondClock
from tests.support.dispatcher_doubles import MemoryProducer, work
from tests.support.waiting import eventually_async


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the end of a stream wait longer than a slow machine needs."""
    monkeypatch.setattr(module, "FLUSH_S", 60.0)


def writer(producer: MemoryProducer, *, window_s: float = 0.02) -> ChunkWriter:
    settings = Settings.model_validate({"dispatcher": {"chunk_window_s": window_s}})
    return ChunkWriter(settings, producer, work(), worker="w1", home=3, clock=MillisecondClock())


def written(producer: MemoryProducer) -> list[Chunk]:
    return [CHUNK.decode(record.value or b"") for _, _, record in producer.written]


async def test_the_first_token_goes_at_once_and_the_rest_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "seconds_to_next_flush", lambda *_: 3600.0)
    producer = MemoryProducer()
    async with writer(producer) as chunks:
        chunks.add([b"1"])
        await eventually_async(lambda: producer.written)
        for number in b"2345":
            chunks.add([bytes([number])])
            await asyncio.sleep(0)
        await chunks.flush()
        assert chunks.count == 2
    first, second = written(producer)
    assert (first["seq"], first["frames"], first["worker"]) == (0, [b"1"], "w1")
    assert (second["seq"], second["frames"]) == (1, [b"2", b"3", b"4", b"5"])
    assert {(topic, partition) for topic, partition, _ in producer.written} == {("headrace.chunks", 3)}


def test_the_windows_of_all_streams_end_together() -> None:
    moments = [100.001, 100.005, 100.013, 100.0199]
    beats = [now + seconds_to_next_flush(now, 0.02) for now in moments]
    assert beats == pytest.approx([100.02] * 4)


@given(st.floats(0, 1e6), st.floats(0.001, 1))
def test_no_window_is_longer_than_the_setting(now_s: float, window_s: float) -> None:
    assert 0 < seconds_to_next_flush(now_s, window_s) <= window_s


async def test_the_end_waits_for_a_write_that_is_under_way() -> None:
    producer = MemoryProducer()
    producer.hold = asyncio.Event()
    async with writer(producer) as chunks:
        chunks.add([b"1"])
        await eventually_async(lambda: producer.writes == 1)
        chunks.add([b"2"])
        ending = asyncio.create_task(chunks.flush())
        await asyncio.sleep(0)
        producer.hold.set()
        await ending
    assert [frame for chunk in written(producer) for frame in chunk["frames"]] == [b"1", b"2"]
    assert chunks.count == len(producer.written)


async def test_nothing_at_all_writes_nothing() -> None:
    producer = MemoryProducer()
    async with writer(producer) as chunks:
        chunks.add([])
        await chunks.flush()
        assert chunks.count == 0
    assert producer.written == []


@given(st.lists(st.lists(st.binary(max_size=60), max_size=5), max_size=20))
def test_all_frames_arrive_once_and_in_order(bursts: list[list[bytes]]) -> None:
    async def play() -> None:
        producer = MemoryProducer()
        async with writer(producer, window_s=0) as chunks:
            for burst in bursts:
                chunks.add(burst)
                await asyncio.sleep(0)
            await chunks.flush()
            assert chunks.count == len(producer.written)
        assert [frame for chunk in written(producer) for frame in chunk["frames"]] == [f for b in bursts for f in b]
        assert [chunk["seq"] for chunk in written(producer)] == list(range(len(producer.written)))

    asyncio.run(play())


async def test_a_burst_is_cut_into_records_of_a_sane_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 100)
    producer = MemoryProducer()
    async with writer(producer) as chunks:
        chunks.add([b"x" * 60, b"y" * 60, b"z" * 300, b"1", b"2"])
        await chunks.flush()
    assert [len(chunk["frames"]) for chunk in written(producer)] == [1, 1, 1, 2]


async def test_what_kafka_refuses_leaves_a_gap() -> None:
    producer = MemoryProducer()
    async with writer(producer, window_s=0) as chunks:
        chunks.add([b"1"])
        await eventually_async(lambda: len(producer.written) == 1)
        producer.blocked = True
        chunks.add([b"2"])
        await eventually_async(lambda: chunks.count == 2)
        producer.blocked = False
        chunks.add([b"3"])
        await chunks.flush()
        assert chunks.count == 3
    assert [chunk["seq"] for chunk in written(producer)] == [0, 2]


async def test_a_frame_too_large_for_a_record_leaves_a_gap() -> None:
    producer = MemoryProducer()
    async with writer(producer) as chunks:
        chunks.add([b"x" * 2_000_000])
        chunks.add([b"small"])
        await chunks.flush()
        assert chunks.count == 2
    assert [chunk["frames"] for chunk in written(producer)] == [[b"small"]]


async def test_a_slow_broker_holds_the_end_of_a_stream_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.05)
    producer = MemoryProducer()
    producer.hold = asyncio.Event()
    async with writer(producer) as chunks:
        chunks.add([b"1"])
        await eventually_async(lambda: producer.writes == 1)
        chunks.add([b"2"])
        await chunks.flush()
        assert chunks.count == 2
    assert producer.written == []
