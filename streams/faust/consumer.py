"""Faust's consumer, changed: less cost per message, committed reads, an own count of offsets, and heartbeat monitoring.

All of this relies on private parts of Faust and aiokafka; a canary test covers each of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Coroutine, Generator, Mapping
from functools import partial
from typing import Any

import uvloop
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.services import WaitResults

from core.kafka.aiokafka_patches import on_heartbeat
from core.kafka.fetching import COMMITTED, patch_fetching
from core.kafka.offsets import LATEST, offsets_at, retried
from streams.faust.topic_changes import discard_outdated_rows


class PromptConsumer(driver.Consumer):
    """Faust's consumer at a lower cost.

    Its thread runs uvloop: asyncio's own loop used 1.2 ms more CPU per blocking call. A message that can be delivered
    at once needs no asyncio tasks.
    """

    async def wait_first(self, *coros: Any, timeout: Any = None) -> Any:
        """Wait for the first of several coroutines; Faust does so for every message and creates four tasks for it.

        They are needed only if a message has to wait for buffer space or for the end of a rebalance, which is rare.
        """
        if timeout is not None or len(coros) != 2 or not all(map(inspect.iscoroutine, coros)):
            return await super().wait_first(*coros, timeout=timeout)  # not a message
        message, rebalance = coros
        try:
            awaited = message.send(None)
        except BaseException as ended:
            rebalance.close()
            if isinstance(ended, StopIteration):
                return WaitResults([message], [ended.value], stopped=False)
            raise
        return await super().wait_first(_StartedCoroutine(message, awaited), rebalance)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the ends of changelogs; local stores that contain more than that are emptied first."""
        ends: Mapping[TP, int] = await super().highwaters(*partitions)
        await discard_outdated_rows(self.app.tables, ends)
        return ends

    def _to_message(self, tp: TP, record: Any) -> Any:
        """Copy the offset at which the gap before the record begins (core/kafka/fetching.py)."""
        message = super()._to_message(tp, record)
        if (since := getattr(record, "since", None)) is not None:
            message.since = since  # type: ignore[attr-defined]  # Faust's messages allow new attributes
        return message

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        thread = CommittedThread(self, loop=self.loop, beacon=self.beacon, thread_loop=uvloop.new_event_loop())
        thread._close_thread_loop_on_stop = True  # noqa: SLF001
        return thread


class CommittedThread(driver.AIOKafkaConsumerThread):
    """Reads committed records only, and survives fetch errors; Faust does so only within its own transactions."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        patch_fetching()
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = COMMITTED  # noqa: SLF001 - read when the consumer starts
        return consumer

    async def _highwaters(self, partitions: Collection[TP]) -> dict[TP, int]:
        """Return the end offsets of changelogs, including records after an open transaction.

        A table recovered only up to an open transaction would lack the records after it.
        """
        client = self._ensure_consumer()._client  # noqa: SLF001
        found = await retried(client, lambda one: offsets_at(one, partitions, LATEST, isolation=0))
        return {TP(*tp): end for tp, end in found.items()}


class _StartedCoroutine:
    """A coroutine that was started and continues in a task."""

    def __init__(self, coro: Coroutine[Any, Any, Any], awaited: Any) -> None:
        self._coro = coro
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        awaited = self._awaited
        step: Callable[[], Any]
        while True:
            try:
                sent = yield awaited
            except BaseException as error:  # noqa: BLE001 - passed to the coroutine, cancellation included
                step = partial(self._coro.throw, error)
            else:
                step = partial(self._coro.send, sent)
            try:
                awaited = step()
            except StopIteration as done:
                return done.value


def patch_seek(
    consumer: Any, inputs: set[TP], starts: Callable[[tuple[str, int]], int | None] = lambda _: None
) -> None:
    """Make Faust's seek to the committed offsets include partitions whose offset is missing, 0 or beyond their end.

    While the table recovers, input records are read and discarded; the seek afterwards reads them again. But Faust
    skips partitions without a committed offset, so their discarded records would be lost (observed after a kill -9
    within the first commit interval). These are set to offset 0, from where auto_offset_reset finds the first record.
    For a recreated topic, the committed offset is beyond the start of the scheduler's own count.
    """

    async def seek_all() -> None:
        await type(consumer).perform_seek(consumer)
        for tp in inputs:
            committed, start = consumer._committed_offset.get(tp), starts((tp.topic, tp.partition))  # noqa: SLF001
            if not committed:
                await consumer.seek(tp, 0)
            elif start is not None and start < committed:
                consumer._committed_offset[tp] = None  # noqa: SLF001 - allows a commit of lower offsets
                await consumer.seek(tp, start)

    consumer.perform_seek = seek_all


def override_commit(consumer: Any, inputs: set[TP], committable: Callable[[tuple[str, int]], int | None]) -> None:
    """Make Faust commit the offsets of the scheduler's own count (streams/input_offsets.py) and no others.

    This covers all inputs: Faust would skip one without an acknowledged record, for example with only transaction
    markers.
    """
    for tp in inputs:
        consumer._acked[tp]  # noqa: SLF001 - adds the key of a defaultdict

    def new_offset(tp: TP) -> int | None:
        consumer._acked[tp].clear()  # noqa: SLF001
        consumer._acked_index[tp].clear()  # noqa: SLF001
        return committable((tp.topic, tp.partition))

    consumer._new_offset = new_offset  # noqa: SLF001


def stable_end(consumer: Any, tp: TP) -> int | None:
    """Return the last stable offset of a partition as of the last fetch; None for one that is not assigned.

    If its topic is missing, the metadata is refreshed, so that a recreated topic is detected: aiokafka itself refreshes
    every five minutes.
    """
    thread = consumer._thread  # noqa: SLF001
    client = thread._ensure_consumer()  # noqa: SLF001
    if tp not in client.assignment():
        if not client.partitions_for_topic(tp.topic):
            thread.thread_loop.call_soon_threadsafe(client._client.force_metadata_update)  # noqa: SLF001
        return None
    end: int | None = client.last_stable_offset(tp)
    return end


def rejoin_if_incomplete(consumer: Any, inputs: set[TP], topics: Collection[str]) -> bool:
    """Rejoin the group if existing partitions of an input are not assigned; returns whether that was necessary.

    A static member that returns within its session gets its previous assignment. A topic that did not exist then would
    never be assigned: aiokafka rejoins only when the metadata changes after it has joined.
    """
    client = consumer._thread._ensure_consumer()  # noqa: SLF001
    assigned = {topic: {tp.partition for tp in inputs if tp.topic == topic} for topic in topics}
    every = set().union(*assigned.values())
    existing = {topic: client.partitions_for_topic(topic) or set() for topic in topics}
    if all(every & existing[topic] <= partitions for topic, partitions in assigned.items()):
        return False
    consumer._thread.thread_loop.call_soon_threadsafe(client._coordinator.request_rejoin)  # noqa: SLF001
    return True


def watch_heartbeats(consumer: Any, callback: Callable[[], None]) -> None:
    """Call `callback` at each heartbeat that the group coordinator has confirmed; a second call has no effect.

    Called in the consumer's thread. If the heartbeat task dies silently, which was observed, the group assigns the
    partitions to another member, and this process would continue with them.
    """
    on_heartbeat(consumer._thread._consumer, callback)  # noqa: SLF001
