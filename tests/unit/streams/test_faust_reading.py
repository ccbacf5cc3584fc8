"""How Faust's consumer reads: what is committed, with gaps, from where our own account begins. Private parts of it."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace

from aiokafka import AIOKafkaConsumer
from faust.types import TP

from core.kafka.fetching import COMMITTED, since
from core.settings import Settings
from streams.faust_app import LaneApp
from streams.faust_consumer import CommittedThread, commit_only, mend_seek
from tests.support.lane_app import lane_app


def lane(folder: Path) -> LaneApp:
    settings = Settings.model_validate({"data_dir": folder, "streams": {"store": "memory"}})
    return lane_app(settings, 0, folder=folder)


async def test_the_consumer_reads_what_is_committed_and_tells_of_gaps(tmp_path: Path) -> None:
    app = lane(tmp_path)
    thread = app.app.consumer._thread
    assert isinstance(thread, CommittedThread)
    consumer = thread._create_worker_consumer(app.app.transport)
    try:
        assert consumer._isolation_level == COMMITTED
        assert "isolation_level=self._isolation_level" in inspect.getsource(AIOKafkaConsumer.start)
        record = SimpleNamespace(
            topic="t", partition=0, offset=7, timestamp=1, timestamp_type=0, headers=(), key=b"", value=b"",
            checksum=None, serialized_key_size=0, serialized_value_size=0, since=5,
        )  # fmt: skip
        assert since(app.app.consumer._to_message(TP("t", 0), record)) == 5
        del record.since
        assert since(app.app.consumer._to_message(TP("t", 0), record)) == 7
    finally:
        await consumer.stop()


async def test_every_input_is_committed_also_without_an_acknowledgement(tmp_path: Path) -> None:
    consumer = lane(tmp_path).app.consumer
    commit_only(consumer, {TP("t", 0)}, lambda _: 4)
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
    mend_seek(consumer, {TP("t", n) for n in range(3)}, lambda place: {0: 3, 1: 5, 2: 0}[place[1]])
    await consumer.perform_seek()
    assert sought == {TP("t", 0): 3, TP("t", 2): 0}
    assert consumer._committed_offset[TP("t", 0)] is None
