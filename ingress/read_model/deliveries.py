"""The newest row of every webhook delivery, folded into a local store.

A cache, like the task view: a store that does not fit the topic is deleted and rebuilt. Rows expire with the retention
of the topic.
"""

from __future__ import annotations

import shutil
import struct
import time
from contextlib import suppress
from pathlib import Path

from aiokafka import TopicPartition
from rocksdict import AccessType, Options, Rdict, ReadOptions, WriteBatch, WriteOptions

from core.errors import Unavailable
from core.kafka.log_reader import LogReader
from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from schemas import topics
from schemas.codec import DELIVERY, SchemaError
from schemas.framing import FramingError
from schemas.records import Delivery

WRITE_BUFFER_BYTES = 4_194_304
_POSITION = b"\x00position\x00%d"
_CLUSTER = b"\x00cluster"
_NUMBER = struct.Struct(">q")


class Deliveries:
    """Delivery rows by task and event."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._settings = settings
        self._name = name
        self._topic = settings.topic(topics.DELIVERIES)
        self._store: Rdict | None = None
        self._tail: TopicFollower | None = None
        self._unlogged = WriteOptions()
        self._unlogged.disable_wal = True  # type: ignore[method-assign,assignment]  # a property, whatever the stub says
        self.read_at: float | None = None

    async def open(self, lookup: LogReader, *, folder: Path, cluster: str) -> None:
        """Open the store below a folder and follow the topic from the stored position; raises Unavailable."""
        tps = [TopicPartition(self._topic, number) for number in range(self._settings.kafka.partitions)]
        bounds = await lookup.bounds(tps)
        path = folder / "deliveries"
        store = _opened(path)
        positions = {tp: _NUMBER.unpack(at)[0] for tp in tps if (at := store.get(_POSITION % tp.partition))}
        fits = all(bounds[tp][0] <= at <= bounds[tp][1] for tp, at in positions.items())
        if store.get(_CLUSTER) != cluster.encode() or not fits:
            store.close()
            shutil.rmtree(path)
            store, positions = _opened(path), {}
            store[_CLUSTER] = cluster.encode()
        self._store = store
        self._tail = TopicFollower(
            self._settings, name=f"{self._name}-deliveries", topics=[self._topic], handle=self.feed, begin=positions
        )
        await self._tail.open()

    async def close(self) -> None:
        """Stop following."""
        if self._tail is not None:
            await self._tail.close()
        if self._store is not None:
            self._store.close()
            self._store = None

    async def wait_for_offset(self, partition: int, offset: int) -> None:
        """Return when the row at this offset has been applied; bound it with asyncio.timeout."""
        if self._tail is not None:
            await self._tail.wait_for_offset(TopicPartition(self._topic, partition), offset)

    def of(self, task_id: str) -> list[Delivery]:
        """Return the deliveries of a task, oldest first; raises Unavailable while existing rows are being read."""
        if self._store is None or self._tail is None or not self._tail.caught_up:
            raise Unavailable("the deliveries have not been read yet; try again in some seconds")
        begin = f"{task_id}/".encode()
        bounded = ReadOptions()
        bounded.set_iterate_upper_bound(begin[:-1] + b"0")  # what follows the slash
        entries = self._store.iter(bounded)
        entries.seek(begin)
        found: list[Delivery] = []
        while entries.valid():
            with suppress(FramingError, SchemaError):  # a record of another producer is skipped
                found.append(DELIVERY.decode(entries.value()))
            entries.next()
        return sorted(found, key=lambda one: one["created_ms"])

    def feed(self, tp: TopicPartition, records: Records) -> None:
        """Apply records of one partition and store the position."""
        if self._store is None:
            return
        batch = WriteBatch(raw_mode=True)
        for record in records:
            if record.key is not None and record.value is not None:
                batch.put(record.key, record.value)
        batch.put(_POSITION % tp.partition, _NUMBER.pack(records[-1].offset + 1))
        self._store.write(batch, self._unlogged)
        self.read_at = time.monotonic()


def _opened(path: Path) -> Rdict:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_keep_log_file_num(2)
    expiring = AccessType.with_ttl(topics.DELIVERY_RETENTION_MS // 1000)
    return Rdict(str(path), options, access_type=expiring)
