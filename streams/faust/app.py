"""The Faust application of one scheduler; it relies on private parts of Faust (those of the consumer: consumer.py).

A canary test covers each private part. Faust provides the consumer group, co-partitioned assignment, the state store
and its recovery from the changelog. Its produce path and batching helpers are not used
(docs/contributing/decisions/0003): `StateTable` writes to the store once the changelog records are durable, and events
are acknowledged one by one after that.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import faust
from faust.types import TP

from core.errors import FatalError
from core.settings.models import Settings
from schemas import topics
from schemas.topics import level_name
from streams.faust.consumer import (
    PromptConsumer,
    override_commit,
    patch_seek,
    rejoin_if_incomplete,
    stable_end,
    watch_heartbeats,
)
from streams.faust.topic_changes import UsedPartitionsAssignor

INBOX_LIMIT = 4096
"""Maximum number of events read ahead; above it Faust's own bounded buffer fills and the fetcher pauses."""
ROCKSDB_OPTIONS = {"block_cache_size": 8 << 20, "write_buffer_size": 8 << 20, "max_open_files": 256}
"""Faust's defaults are a 2 GiB cache and 64 MB buffers per partition."""


class StateTable:
    """Store of a table: framed state records by partition and id."""

    def __init__(self, table: Any, changelog: str) -> None:
        self._table = table
        self._changelog = changelog

    def get(self, partition: int, key: bytes) -> bytes | None:
        """Return a state record."""
        store = self._table.data
        rocksdb = hasattr(store, "_db_for_partition")
        source = store._db_for_partition(partition) if rocksdb else store.data  # noqa: SLF001
        value: bytes | None = source.get(key)
        return value

    def put(self, partition: int, rows: list[tuple[bytes, bytes | None]], *, offset: int) -> None:
        """Store state records whose changelog records are durable up to `offset`; the value None deletes."""
        store = self._table.data
        if hasattr(store, "_db_for_partition"):
            db = store._db_for_partition(partition)  # noqa: SLF001
            for key, value in rows:
                if value is None:
                    db.delete(key)
                else:
                    db.put(key, value)
            store.set_persisted_offset(TP(self._changelog, partition), offset)
            return
        for key, value in rows:
            if value is None:
                store.data.pop(key, None)
            else:
                store.data[key] = value
                store._key_partition[key] = partition  # noqa: SLF001 - else it would remain after a revocation

    def scan(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over a partition; concurrent writes may or may not be visible."""
        store = self._table.data
        if hasattr(store, "_db_for_partition"):
            for key, value in store._db_for_partition(partition).items():  # noqa: SLF001
                if key != store.offset_key:
                    yield key, value
            return
        for key, value in list(store.data.items()):
            if store._key_partition.get(key) == partition:  # noqa: SLF001
                yield key, value

    def scan_from(self, partition: int, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over a partition in key order, starting at `key`."""
        store = self._table.data
        if hasattr(store, "_db_for_partition"):
            for found, value in store._db_for_partition(partition).items(from_key=key):  # noqa: SLF001
                if found != store.offset_key:
                    yield found, value
            return
        yield from sorted(row for row in self.scan(partition) if row[0] >= key)


class EmptyTable(StateTable):
    """The batch table of the online level, which is empty: batches run offline."""

    def __init__(self) -> None:
        """Use no store."""

    def get(self, partition: int, key: bytes) -> bytes | None:  # noqa: ARG002 - signature of StateTable
        """Return None."""
        return None

    def scan(self, partition: int) -> Iterator[tuple[bytes, bytes]]:  # noqa: ARG002 - signature of StateTable
        """Return an empty iterator."""
        return iter(())


class InputHandlers(NamedTuple):
    """Callbacks of the application."""

    on_event: Callable[[Any], Awaitable[None]]
    """Receives each event of the inputs; blocking here pauses the stream."""
    on_ready: Callable[[set[int]], Awaitable[None]]
    """Receives the owned partitions after a rebalance, before the first event."""
    on_revoked: Callable[[], Awaitable[None]]
    committable: Callable[[tuple[str, int]], int | None]
    """Returns the offset that may be committed for an input partition (topic, partition)."""


class SchedulerApp:
    """Faust application that reads tasks.LEVEL and events.LEVEL and owns the state tables of a level."""

    def __init__(self, settings: Settings, level: int, *, folder: Path, instance: int) -> None:
        self._handlers: InputHandlers | None = None
        self._confirmed_at = time.monotonic()
        self._asked = False
        self._inputs = (settings.topic(topics.tasks(level)), settings.topic(topics.events(level)))
        partitions = settings.kafka.partitions
        self.app = faust.App(
            settings.topic(f"scheduler.{level_name(level)}"),
            broker=[f"kafka://{address.strip()}" for address in settings.kafka.bootstrap.split(",")],
            store="rocksdb://" if settings.streams.store == "rocksdb" else "memory://",
            datadir=folder,
            key_serializer="raw",
            value_serializer="raw",
            topic_partitions=partitions,
            topic_replication_factor=settings.kafka.replication_factor,
            topic_allow_declare=False,
            topic_disable_leader=True,
            PartitionAssignor=UsedPartitionsAssignor,
            table_standby_replicas=0,
            web_enabled=False,
            stream_buffer_maxsize=INBOX_LIMIT,
            broker_session_timeout=settings.streams.session_timeout_s,
            broker_heartbeat_interval=settings.streams.session_timeout_s / 4,
            broker_commit_interval=0.5,
            broker_commit_every=5_000,
            # Faust would report its own changelog, which no stream reads after the recovery, as stalled every 10 s;
            # `Scheduler.watch_inputs` watches the inputs instead.
            stream_processing_timeout=math.inf,
            consumer_auto_offset_reset="earliest",
            # Static membership: a restarted process gets its partitions without waiting for the session to expire.
            consumer_group_instance_id=f"{socket.gethostname()}-{level_name(level)}-{instance}",
            loop=asyncio.get_running_loop(),
        )
        transport: Any = self.app.transport
        transport.Consumer = PromptConsumer
        source = self.app.topic(*self._inputs, partitions=partitions, key_type=bytes, value_type=bytes)
        self.rows = self._table(f"rows-{level_name(level)}", settings.topic(topics.status(level)), settings)
        offline = level_name(level) == "offline"
        self.batches = self._table("batches", settings.topic(topics.BATCHES), settings) if offline else EmptyTable()

        async def scheduler(stream: Any) -> None:
            stream.enable_acks = False
            async for event in stream.events():
                await self._current.on_event(event)

        self.app.agent(source, concurrency=1, name=f"scheduler-{level_name(level)}")(scheduler)

        async def ready(*_: Any, **__: Any) -> None:
            handlers = self._current
            inputs = {tp for tp in self.app.assignor.assigned_actives() if tp.topic in self._inputs}
            self._on_heartbeat()
            watch_heartbeats(self.app.consumer, self._on_heartbeat)
            patch_seek(self.app.consumer, inputs, handlers.committable)
            override_commit(self.app.consumer, inputs, handlers.committable)
            await handlers.on_ready({tp.partition for tp in inputs})
            if not self._asked:  # once: if the topics themselves differ, another request changes nothing
                self._asked = rejoin_if_incomplete(self.app.consumer, inputs, self._inputs)

        async def revoked(*_: Any, **__: Any) -> None:
            await self._current.on_revoked()

        # Referenced here, because Faust's signals hold weak references. The first is sent after the recovery of the
        # table and before the first event, the second after pending events and before the partitions are revoked.
        self._receivers: tuple[Any, Any] = (ready, revoked)
        self.app.on_rebalance_complete.connect(self._receivers[0])
        self.app.on_partitions_revoked.connect(self._receivers[1])

    def _table(self, name: str, changelog: str, settings: Settings) -> StateTable:
        partitions = settings.kafka.partitions
        topic = self.app.topic(
            changelog, partitions=partitions, key_type=bytes, value_type=bytes, compacting=True, deleting=False
        )
        options = dict(ROCKSDB_OPTIONS) if settings.streams.store == "rocksdb" else None
        table = self.app.Table(
            name, partitions=partitions, key_type=bytes, value_type=bytes, changelog_topic=topic, options=options
        )
        return StateTable(table, changelog)

    def _on_heartbeat(self) -> None:
        self._confirmed_at = time.monotonic()

    @property
    def _current(self) -> InputHandlers:
        if self._handlers is None:
            raise FatalError("the Faust application received an event before it was started")
        return self._handlers

    def seconds_since_heartbeat(self) -> float:
        """Return the seconds since the last confirmed group heartbeat; after a session another process may own all."""
        return time.monotonic() - self._confirmed_at

    def end_offset(self, partition: tuple[str, int]) -> int | None:
        """Return the last stable offset of an input partition (topic, partition) as of the last fetch."""
        return stable_end(self.app.consumer, TP(*partition))

    async def start(self, handlers: InputHandlers) -> None:
        """Join the group, recover the table and start to deliver events to the handlers."""
        self._handlers = handlers
        await self.app.start()

    async def stop(self) -> None:
        """Finish the current batch, commit and leave the group."""
        await self.app.stop()

    async def wait_crashed(self) -> BaseException | None:
        """Wait until the application stops by itself; returns the reason."""
        await self.app.wait_until_stopped()
        reason: BaseException | None = self.app.crash_reason
        return reason
