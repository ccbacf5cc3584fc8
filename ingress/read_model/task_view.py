"""The read model: the newest status row of every task, folded into a local store, and an index for listings.

A cache. Rows and the position of the follower are written together, without a write-ahead log: after a crash the store
is some seconds older, and reading on from its position completes it.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from aiokafka import TopicPartition
from rocksdict import AccessType, Options, Rdict, ReadOptions, WriteBatch, WriteOptions

from core.clock import epoch_ms
from core.kafka.log_reader import LogReader
from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from ingress.read_model import listing_index
from schemas import topics
from schemas.codec import STATUS, SchemaError, state_of
from schemas.framing import FramingError
from schemas.records import TERMINAL, State, Status

log = logging.getLogger(__name__)

STALE_MS = 12 * 3_600_000
"""Kafka drops tombstones of a compacted topic after 24 h; an older store could still hold deleted rows."""
WRITE_BUFFER_BYTES = 8_388_608
BATCHING_S = 0.03
"""Fetch pause: a blocking call produces two rows within 20 ms and waits for neither; fetching each alone costs CPU."""
_POSITION = b"\x00position\x00"
_SAVED = b"\x00saved"
_CLUSTER = b"\x00cluster"
_FORM = b"\x00form"
FORMAT_VERSION = b"2"
"""Version of the store's layout; 2 added the listing index."""
_NUMBER = struct.Struct(">q")


class TaskView:
    """Status rows by task id."""

    def __init__(self, settings: Settings, *, folder: Path, name: str) -> None:
        self._folder = folder / "view"
        self._topics = [settings.topic(topics.status(level)) for level in (0, 1)]
        self._partitions = settings.kafka.partitions
        self._settings = settings
        self._name = name
        self._store: Rdict | None = None
        self._tail: TopicFollower | None = None
        self._unlogged = WriteOptions()
        self._unlogged.disable_wal = True  # type: ignore[method-assign,assignment]  # a property, whatever the stub says
        self._awaited: dict[bytes, set[asyncio.Future[None]]] = {}
        self._watched: dict[bytes, Callable[[Status], None]] = {}
        self.watchers: list[Callable[[Records], None]] = []
        """Called with every batch before it is written, so that the previous rows can still be read."""
        self.read_at: float | None = None

    async def open(self, lookup: LogReader, *, cluster: str) -> None:
        """Open the store and follow the topics from the stored position; existing rows are read in the background.

        A store of another cluster, or one that does not fit the topics, is deleted and rebuilt.
        """
        tps = [TopicPartition(topic, partition) for topic in self._topics for partition in range(self._partitions)]
        bounds = await lookup.bounds(tps)
        self._store = self._open_store()
        if not self._fits(bounds, cluster):
            self._store.close()
            shutil.rmtree(self._folder)
            self._store = self._open_store()
            self._store[_CLUSTER] = cluster.encode()
            self._store[_FORM] = FORMAT_VERSION
        self._tail = TopicFollower(
            self._settings,
            name=f"{self._name}-view",
            topics=self._topics,
            handle=self.feed,
            begin=self._positions(tps),
            rest_s=BATCHING_S,
        )
        await self._tail.open()

    async def close(self) -> None:
        """Stop following and flush the store to disk."""
        if self._tail is not None:
            await self._tail.close()
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def caught_up(self) -> bool:
        """Return whether all rows that existed at the start have been read."""
        return self._tail is not None and self._tail.caught_up

    def get(self, key: bytes, *, holding: bytes = b"") -> Status | None:
        """Return the row of a task; None when its encoded form lacks `holding`, which lets a search skip decoding."""
        value = self._store.get(key) if self._store is not None else None
        return None if value is None or holding not in value else STATUS.decode(value)

    def state(self, key: bytes) -> State | None:
        """Return the state of a task without decoding its row; None without a row."""
        value = self._store.get(key) if self._store is not None else None
        return None if value is None else state_of(value)

    def scan(self, begin: bytes, end: bytes, *, limit: int) -> list[tuple[bytes, bytes]]:
        """Return the first entries from `begin` up to, but not including, `end`."""
        if self._store is None:
            return []
        bounded = ReadOptions()
        bounded.set_iterate_upper_bound(end)
        found: list[tuple[bytes, bytes]] = []
        entries = self._store.iter(bounded)
        entries.seek(begin)
        while entries.valid() and len(found) < limit:
            found.append((entries.key(), entries.value()))
            entries.next()
        return found

    async def wait_for_offset(self, tp: TopicPartition, offset: int) -> None:
        """Return when the record at this offset has been applied; bound it with asyncio.timeout."""
        if self._tail is not None:
            await self._tail.wait_for_offset(tp, offset)

    async def wait(self, key: bytes, *, seconds: float) -> Status | None:
        """Return the row of a task, waiting up to `seconds` for it to appear."""
        return await self.wait_until(key, lambda _: True, seconds=seconds)

    async def wait_until(self, key: bytes, wanted: Callable[[Status], bool], *, seconds: float) -> Status | None:
        """Return the row of a task once `wanted` accepts it, or its present row when the time is over."""
        try:
            async with asyncio.timeout(seconds):
                while (row := self.get(key)) is None or not wanted(row):
                    await self._changed(key)
                return row
        except TimeoutError:
            return self.get(key)

    async def wait_until_ended(self, key: bytes, *, seconds: float) -> bool:
        """Return whether a task has ended, waiting up to `seconds`; intermediate rows are not decoded."""
        try:
            async with asyncio.timeout(seconds):
                while not self._ended(key):
                    await self._changed(key)
                return True
        except TimeoutError:
            return self._ended(key)

    def _ended(self, key: bytes) -> bool:
        value = self._store.get(key) if self._store is not None else None
        return value is not None and state_of(value) in TERMINAL

    @contextmanager
    def watch(self, key: bytes, on_row: Callable[[Status], None]) -> Iterator[None]:
        """Call `on_row` with every new row of a task while the block runs; one per task, and it must not raise."""
        self._watched[key] = on_row
        try:
            with self._low_latency():
                yield
        finally:
            del self._watched[key]

    def _low_latency(self) -> AbstractContextManager[None]:
        return nullcontext() if self._tail is None else self._tail.low_latency()

    async def _changed(self, key: bytes) -> None:
        """Return when a record of this key has been read."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._awaited.setdefault(key, set())
        waiting.add(future)
        try:
            with self._low_latency():
                await future
        finally:
            waiting.discard(future)
            if not waiting:
                self._awaited.pop(key, None)

    def feed(self, tp: TopicPartition, records: Records) -> None:
        """Apply records of one partition and store the position."""
        if self._store is None:
            return
        for watcher in self.watchers:
            watcher(records)
        batch = WriteBatch(raw_mode=True)
        entries: dict[bytes, bytes] = {}
        for record in records:
            if record.key is None:
                continue
            if record.value is None:
                batch.delete(record.key)
                if (known := entries.pop(record.key, None) or self._entry_key(record.key)) is not None:
                    batch.delete(known)
                continue
            batch.put(record.key, record.value)
            if (entry := listing_index.entry(record.key, record.headers)) is not None:
                entries[record.key] = entry[0]
                batch.put(*entry)
        batch.put(_position_key(tp), _NUMBER.pack(records[-1].offset + 1))
        batch.put(_SAVED, _NUMBER.pack(epoch_ms()))
        self._store.write(batch, self._unlogged)
        self.read_at = time.monotonic()
        if self._awaited or self._watched:
            self._wake(records)

    def _entry_key(self, key: bytes) -> bytes | None:
        """Return the listing key of a removed task; rare, so the row may be decoded."""
        try:
            row = self.get(key)
        except (FramingError, SchemaError):
            return None
        if row is None or row["owner"] is None:
            return None
        return listing_index.entry_key(row["owner"], listing_index.ListingPosition(row["created_ms"], row["id"]))

    def _wake(self, records: Records) -> None:
        for record in records:
            key = record.key or b""
            for future in self._awaited.get(key, ()):
                if not future.done():
                    future.set_result(None)
            on_row = self._watched.get(key)
            if on_row is not None and record.value is not None:
                try:
                    on_row(STATUS.decode(record.value))
                except (FramingError, SchemaError) as error:
                    log.warning("cannot decode the row of %r: %s", key, error, extra={"event": "status_unreadable"})

    def _open_store(self) -> Rdict:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(WRITE_BUFFER_BYTES)
        options.set_max_write_buffer_number(2)
        options.set_keep_log_file_num(2)
        options.optimize_for_point_lookup(8)
        return Rdict(str(self._folder), options, access_type=AccessType.read_write())

    def _fits(self, bounds: dict[TopicPartition, tuple[int, int]], cluster: str) -> bool:
        """Return whether the store can be continued from its positions; logs the reason if not."""
        store = self._store
        assert store is not None  # noqa: S101 - only called by open
        if store.get(_CLUSTER) is None:
            return False
        reason = None
        saved = store.get(_SAVED)
        if store.get(_CLUSTER) != cluster.encode():
            reason = "it belongs to another cluster"
        elif store.get(_FORM) != FORMAT_VERSION:
            reason = "it was written by another version"
        elif saved is not None and _NUMBER.unpack(saved)[0] < epoch_ms() - STALE_MS:
            reason = "it is older than the tombstones of the topic"
        else:
            for tp, position in self._positions(list(bounds)).items():
                begin, end = bounds[tp]
                if not begin <= position <= end:
                    reason = f"{tp.topic}/{tp.partition} has offsets {begin} to {end}, the store is at {position}"
        if reason is None:
            return True
        log.info("rebuilding the read model: %s", reason, extra={"event": "view_rebuilt"})
        return False

    def _positions(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        if self._store is None:
            return {}
        stored = {tp: self._store.get(_position_key(tp)) for tp in tps}
        return {tp: _NUMBER.unpack(value)[0] for tp, value in stored.items() if value is not None}


def _position_key(tp: TopicPartition) -> bytes:
    return _POSITION + f"{tp.topic}/{tp.partition}".encode()
