"""The private parts of Faust and aiokafka that we lean on: an upgrade that moves one of them fails here, by name."""

from __future__ import annotations

import asyncio
import inspect
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import faust
import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust.transport.consumer import Consumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP

from core.errors import SessionExpired
from core.kafka.producer import Producer, discard
from core.settings.models import Settings
from streams.faust.app import SchedulerApp
from streams.faust.consumer import patch_seek, watch_heartbeats
from streams.scheduler import Scheduler
from streams.state_index import StateIndex
from tests.support.scheduler_app import scheduler_app
from tests.support.waiting import eventually_async


def app_in(folder: Path, store: str) -> SchedulerApp:
    settings = Settings.model_validate({"data_dir": folder, "streams": {"store": store}})
    return scheduler_app(settings, 0, folder=folder)


@pytest.mark.parametrize("store", ["rocksdb", "memory"])
async def test_rows_go_to_the_store_and_back(tmp_path: Path, store: str) -> None:
    app = app_in(tmp_path, store)
    app.rows.put(3, [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")], offset=7)
    app.rows.put(3, [(b"b", None)], offset=8)
    app.rows.put(4, [(b"d", b"4")], offset=0)
    assert app.rows.get(3, b"a") == b"1"
    assert app.rows.get(3, b"b") is None
    assert sorted(app.rows.scan(3)) == [(b"a", b"1"), (b"c", b"3")]
    assert list(app.rows.scan_from(3, b"a\x00")) == [(b"c", b"3")]


async def test_the_store_remembers_how_far_the_changelog_is_in_it(tmp_path: Path) -> None:
    app = app_in(tmp_path, "rocksdb")
    app.rows.put(3, [(b"a", b"1")], offset=7)
    [table] = app.app.tables.values()
    assert table.data.persisted_offset(TP("headrace.status.online", 3)) == 7


async def test_faust_recovers_from_the_topic_that_we_write(tmp_path: Path) -> None:
    [table] = app_in(tmp_path, "memory").app.tables.values()
    assert table.changelog_topic.get_topic_name() == "headrace.status.online"
    assert table.changelog_topic.compacting


def test_acks_can_be_switched_off_on_a_stream() -> None:
    assert "enable_acks" in inspect.getsource(faust.Stream.__init__)
    assert inspect.isasyncgenfunction(faust.Stream.events)


def test_the_signals_come_at_the_moments_we_need() -> None:
    """on_rebalance_complete: after the recovery, before the seek and the first event."""
    from faust.tables.recovery import Recovery

    source = inspect.getsource(Recovery.on_recovery_completed)
    assert source.index("on_rebalance_complete.send") < source.index("perform_seek") < source.index("resume_flow")
    source = inspect.getsource(Recovery._resume_streams)
    assert source.index("on_rebalance_complete.send") < source.index("perform_seek") < source.index("resume_flow")


async def test_a_changelog_that_no_stream_reads_is_no_error(tmp_path: Path) -> None:
    assert app_in(tmp_path, "memory").app.conf.stream_processing_timeout == math.inf
    assert "tp_stream_timeout_secs = stream_processing_timeout" in inspect.getsource(AIOKafkaConsumerThread)
    verdict = inspect.getsource(AIOKafkaConsumerThread.verify_event_path)
    assert "secs_since_started >= self.tp_stream_timeout_secs" in verdict


async def test_partitions_without_a_commit_are_set_to_their_first_record() -> None:
    class Stub:
        def __init__(self) -> None:
            self._committed_offset = {TP("t", 1): 5, TP("t", 2): None}
            self.sought: list[tuple[TP, int]] = []

        async def perform_seek(self) -> None:
            self.sought.append((TP("all", 0), -1))

        async def seek(self, tp: TP, offset: int) -> None:
            self.sought.append((tp, offset))

    stub = Stub()
    patch_seek(stub, {TP("t", 1), TP("t", 2), TP("t", 3)})
    await stub.perform_seek()
    assert stub.sought[0] == (TP("all", 0), -1)
    assert sorted(stub.sought[1:]) == [(TP("t", 2), 0), (TP("t", 3), 0)]
    assert "_committed_offset" in inspect.getsource(Consumer.perform_seek)


async def test_a_producer_can_be_dropped_with_its_buffer() -> None:
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1")
    assert producer._closed is False
    assert hasattr(producer._sender, "close")
    async with asyncio.timeout(60):
        await discard(producer)
    assert producer._closed is True


async def test_a_consumer_can_ask_for_metadata_before_it_is_assigned() -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1")
    assert callable(consumer._client.force_metadata_update)
    assert callable(consumer._client._wait_on_metadata)
    await consumer.stop()


async def test_the_consumer_runs_on_uvloop_in_its_thread(tmp_path: Path) -> None:
    app = app_in(tmp_path, "memory")
    thread: Any = app.app.consumer._thread
    assert isinstance(thread.thread_loop, uvloop.Loop)
    assert thread._close_thread_loop_on_stop
    thread.thread_loop.close()


def test_faust_waits_for_every_message_beside_a_rebalance() -> None:
    """`QuickConsumer.wait_first` steps the first of these itself."""
    source = inspect.getsource(Consumer._drain_messages)
    assert "self.wait_first(\n                                callback(message), self.suspend_flow.wait()" in source


async def waiting_first(app: SchedulerApp, first: Any, second: Any) -> Any:
    consumer: Any = app.app.consumer
    async with asyncio.timeout(60):
        return await consumer.wait_first(first, second)


async def test_a_message_that_need_not_wait_makes_no_task(tmp_path: Path) -> None:
    async def handed_on() -> str:
        return "there"

    ran_in: list[asyncio.Task[Any] | None] = []

    async def noted() -> str:
        ran_in.append(asyncio.current_task())
        return await handed_on()

    never = asyncio.Event()
    found = await waiting_first(app_in(tmp_path, "memory"), noted(), never.wait())
    assert (found.results, found.stopped) == (["there"], False)
    assert ran_in == [asyncio.current_task()]


async def test_a_message_that_waits_goes_on_in_its_own_time(tmp_path: Path) -> None:
    room, never, order = asyncio.Event(), asyncio.Event(), []

    async def handed_on() -> str:
        for name in ("first", "second"):
            order.append(name)
            await room.wait()
            await asyncio.sleep(0)
        return "there"

    waiting = asyncio.ensure_future(waiting_first(app_in(tmp_path, "memory"), handed_on(), never.wait()))
    await eventually_async(lambda: order == ["first"], what="the first step")
    room.set()
    assert (await waiting).results == ["there"]
    assert order == ["first", "second"]


async def test_a_rebalance_takes_a_waiting_message_back(tmp_path: Path) -> None:
    suspended, begun, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handed_on() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
            raise

    waiting = asyncio.ensure_future(waiting_first(app_in(tmp_path, "memory"), handed_on(), suspended.wait()))
    await begun.wait()
    suspended.set()
    assert (await waiting).results == [True]
    await asyncio.wait_for(ended.wait(), 60)


async def test_what_a_message_comes_to_grief_of_is_raised(tmp_path: Path) -> None:
    async def handed_on() -> None:
        raise ValueError("at once")

    async def later() -> None:
        await asyncio.sleep(0)
        raise ValueError("later")

    for broken in (handed_on(), later()):
        with pytest.raises(ValueError, match=r"at once|later"):
            await waiting_first(app_in(tmp_path, "memory"), broken, asyncio.Event().wait())


class Coordinator:
    def __init__(self) -> None:
        self.confirms = True

    async def _do_heartbeat(self) -> bool:
        return self.confirms


async def test_only_confirmed_heartbeats_count() -> None:
    coordinator, confirmed = Coordinator(), []
    consumer = SimpleNamespace(_thread=SimpleNamespace(_consumer=SimpleNamespace(_coordinator=coordinator)))
    for _ in range(2):  # each assignment registers the callback again
        watch_heartbeats(consumer, lambda: confirmed.append(1))
    assert await coordinator._do_heartbeat()
    assert confirmed == [1]
    coordinator.confirms = False
    assert not await coordinator._do_heartbeat()
    assert confirmed == [1]


def test_heartbeats_are_where_they_are_noted() -> None:
    assert "await self._do_heartbeat()" in inspect.getsource(GroupCoordinator._heartbeat_routine)
    assert "self._coordinator = GroupCoordinator(" in inspect.getsource(AIOKafkaConsumer.start)
    assert "_consumer" in AIOKafkaConsumerThread.__annotations__


async def test_a_member_without_a_confirmed_heartbeat_writes_nothing(tmp_path: Path) -> None:
    silent, asked = [9_000.0], []
    stored: Any = {}

    def seconds_since_heartbeat() -> float:
        asked.append(silent[0])
        return silent[0]

    def scheduler(session_timeout_s: float) -> Scheduler:
        settings, nowhere = Settings.model_validate({"data_dir": tmp_path}), cast("Any", None)
        streams = settings.streams.model_copy(update={"session_timeout_s": session_timeout_s})
        settings = settings.model_copy(update={"streams": streams})
        return Scheduler(
            settings,
            0,
            producer=Producer(settings, name="none"),
            lookup=nowhere,
            queues=nowhere,
            index=StateIndex(),
            rows=stored,
            batches=stored,
            seconds_since_heartbeat=seconds_since_heartbeat,
        )

    with pytest.raises(SessionExpired, match="confirmed no heartbeat for 9000"):
        await scheduler(0.1)._process([])
    asked.clear()
    waiting = asyncio.ensure_future(scheduler(3_600)._await_group_heartbeat())
    await eventually_async(lambda: asked, what="the first look")
    assert not waiting.done()
    silent[0] = 0.0
    await asyncio.wait_for(waiting, 60)


async def test_other_waits_of_faust_end_with_its_service(tmp_path: Path) -> None:
    consumer: Any = app_in(tmp_path, "memory").app.consumer
    consumer._stopped.set()
    try:
        assert (await consumer.wait(asyncio.sleep(0))).stopped
    finally:
        consumer._stopped.clear()
