"""How Faust's consumer reads: what is committed, with gaps, from where our own account begins. Private parts of it."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust.tables.recovery import Recovery
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP

from core.kafka.fetching import COMMITTED, since
from core.settings.models import Settings
from streams.faust.app import SchedulerApp
from streams.faust.consumer import CommittedThread, override_commit, patch_seek, rejoin_if_incomplete, stable_end
from tests.support.scheduler_app import scheduler_app


def app_in(folder: Path) -> SchedulerApp:
    settings = Settings.model_validate({"data_dir": folder, "streams": {"store": "memory"}})
    return scheduler_app(settings, 0, folder=folder)


async def test_the_consumer_reads_committed_records_and_reports_gaps(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    thread = app.app.consumer._thread
    assert isinstance(thread, CommittedThread)
    consumer = thread._create_worker_consumer(app.app.transport)
    try:
        assert consumer._isolation_level == COMMITTED
        assert "isolation_level=self._isolation_level" in inspect.getsource(AIOKafkaConsumer.start)
        record = SimpleNamespace(
            topic="t",
            partition=0,
            offset=7,
            timestamp=1,
            timestamp_type=0,
            headers=(),
            key=b"",
            value=b"",
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=0,
            since=5,
        )
        assert since(app.app.consumer._to_message(TP("t", 0), record)) == 5
        del record.since
        assert since(app.app.consumer._to_message(TP("t", 0), record)) == 7
    finally:
        await consumer.stop()


async def test_every_input_is_committed_also_without_an_acknowledgement(tmp_path: Path) -> None:
    consumer = app_in(tmp_path).app.consumer
    override_commit(consumer, {TP("t", 0)}, lambda _: 4)
    assert consumer._filter_committable_offsets({TP("t", 0)}) == {TP("t", 0): 4}
    assert [*consumer._filter_tps_with_pending_acks()] == [TP("t", 0)]


async def test_a_committed_offset_behind_the_end_is_not_where_reading_begins() -> None:
    sought: dict[TP, int] = {}

    class Consumer:
        _committed_offset = {TP("t", 0): 500, TP("t", 1): 5, TP("t", 2): None}  # noqa: RUF012

        async def perform_seek(self) -> None:
            """Seek to the committed offsets."""

        async def seek(self, tp: TP, offset: int) -> None:
            sought[tp] = offset

    consumer = Consumer()
    patch_seek(consumer, {TP("t", n) for n in range(3)}, lambda place: {0: 3, 1: 5, 2: 0}[place[1]])
    await consumer.perform_seek()
    assert sought == {TP("t", 0): 3, TP("t", 2): 0}
    assert consumer._committed_offset[TP("t", 0)] is None


class Client:
    """A consumer that was given partitions of some topics."""

    def __init__(self, *given: TP, there: dict[str, set[int]]) -> None:
        self.given, self.there = set(given), there
        self.called: list[str] = []
        self._client = SimpleNamespace(force_metadata_update=lambda: self.called.append("metadata"))
        self._coordinator = SimpleNamespace(request_rejoin=lambda: self.called.append("rejoin"))

    def assignment(self) -> set[TP]:
        return self.given

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self.there.get(topic)

    def last_stable_offset(self, _: TP) -> int:
        return 7

    def consumer(self) -> SimpleNamespace:
        loop = SimpleNamespace(call_soon_threadsafe=lambda call: call())
        return SimpleNamespace(_thread=SimpleNamespace(_ensure_consumer=lambda: self, thread_loop=loop))


def test_a_topic_that_was_not_there_when_the_group_was_joined_is_asked_for() -> None:
    events = {TP("events", 0), TP("events", 1)}
    whole = events | {TP("tasks", 0), TP("tasks", 1)}
    both = {"events": {0, 1}, "tasks": {0, 1}}
    for inputs, there, called in (
        (whole, both, []),
        (events, both, ["rejoin"]),
        (events, {"events": {0, 1}}, []),
        ({TP("events", 0), TP("tasks", 0)}, both, []),
    ):
        client = Client(*inputs, there=there)
        assert rejoin_if_incomplete(client.consumer(), set(inputs), ["events", "tasks"]) is bool(called)
        assert client.called == called


def test_the_end_of_an_unassigned_partition_is_unknown() -> None:
    client = Client(TP("events", 0), there={"events": {0}})
    assert stable_end(client.consumer(), TP("events", 0)) == 7
    assert stable_end(client.consumer(), TP("events", 1)) is None
    assert client.called == []
    assert stable_end(client.consumer(), TP("tasks", 0)) is None
    assert client.called == ["metadata"]


def test_the_parts_of_aiokafka_that_are_asked() -> None:
    assert inspect.isfunction(GroupCoordinator.request_rejoin)
    assert inspect.isfunction(AIOKafkaClient.force_metadata_update)
    assert inspect.isfunction(AIOKafkaConsumer.partitions_for_topic)
    assert "self._coordinator = GroupCoordinator(" in inspect.getsource(AIOKafkaConsumer.start)


async def test_a_table_is_recovered_beyond_an_open_transaction(tmp_path: Path) -> None:
    """Else it would lack the rows that were written behind it."""
    asked: list[int] = []

    class Broker:
        cluster = SimpleNamespace(leader_for_partition=lambda _: 1)

        async def send(self, _: int, request: Any) -> Any:
            asked.append(request._isolation_level)
            found = [(topic, [(number, 0, 0, 12) for number, _ in several]) for topic, several in request._topics]
            return SimpleNamespace(topics=found)

    thread = app_in(tmp_path).app.consumer._thread
    thread._consumer = SimpleNamespace(_client=Broker())
    assert await thread._highwaters([TP("status", 3)]) == {TP("status", 3): 12}
    assert asked == [0]
    thread._consumer = None
    assert "self._highwaters" in inspect.getsource(AIOKafkaConsumerThread.highwaters)
    assert "await consumer.highwaters(*tps)" in inspect.getsource(Recovery._build_highwaters)
