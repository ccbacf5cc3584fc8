"""Faust's consumer as we need it: cheaper for each message, and with an account of its own of what is done and heard.

All of this leans on private parts of Faust and aiokafka; a canary test holds each of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Coroutine, Generator
from functools import partial
from typing import Any

import uvloop
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.services import WaitResults

from core.kafka.aiokafka_patches import on_heartbeat
from core.kafka.fetching import COMMITTED, patch_fetching
from core.kafka.offsets import LATEST, offsets_at, retried


class PromptConsumer(driver.Consumer):
    """Faust's consumer at less cost.

    uvloop in its thread: asyncio's own loop there took 1.2 ms CPU more of every held call. And no tasks for a message
    that is handed on at once.
    """

    async def wait_first(self, *coros: Any, timeout: Any = None) -> Any:
        """Wait for the first of several; Faust does so for every message, and for that makes four tasks.

        They are needed when a message has to wait: for room, or for the end of a rebalance. Nearly none has.
        """
        if timeout is not None or len(coros) != 2 or not all(map(inspect.iscoroutine, coros)):
            return await super().wait_first(*coros, timeout=timeout)  # Faust waits for other things, too
        message, rebalance = coros
        try:
            awaited = message.send(None)
        except BaseException as ended:
            rebalance.close()
            if isinstance(ended, StopIteration):
                return WaitResults([message], [ended.value], stopped=False)
            raise
        return await super().wait_first(_StartedCoroutine(message, awaited), rebalance)

    def _to_message(self, tp: TP, record: Any) -> Any:
        """Keep what is known of a gap before the record (core/kafka/fetching.py)."""
        message = super()._to_message(tp, record)
        if (since := getattr(record, "since", None)) is not None:
            message.since = since  # type: ignore[attr-defined]  # Faust's messages take what they are given
        return message

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        thread = CommittedThread(self, loop=self.loop, beacon=self.beacon, thread_loop=uvloop.new_event_loop())
        thread._close_thread_loop_on_stop = True  # noqa: SLF001
        return thread


class CommittedThread(driver.AIOKafkaConsumerThread):
    """Reads what is committed, and nothing of a fetch ends it; Faust reads so only within transactions of its own."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        patch_fetching()
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = COMMITTED  # noqa: SLF001 - it is looked at when the consumer starts
        return consumer

    async def _highwaters(self, partitions: Collection[TP]) -> dict[TP, int]:
        """Return the ends of changelogs behind any transaction that is open, too.

        A table that was recovered only up to one would lack the rows behind it: the recovery waits for its end.
        """
        client = self._ensure_consumer()._client  # noqa: SLF001
        found = await retried(client, lambda one: offsets_at(one, partitions, LATEST, isolation=0))
        return {TP(*tp): end for tp, end in found.items()}


class _StartedCoroutine:
    """A coroutine that has had its first step and is to go on in a task."""

    def __init__(self, coro: Coroutine[Any, Any, Any], awaited: Any) -> None:
        self._coro = coro
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        awaited = self._awaited
        step: Callable[[], Any]
        while True:
            try:
                sent = yield awaited
            except BaseException as error:  # noqa: BLE001 - the coroutine is told, a cancel above all
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
    """Make Faust's seek to the committed offsets cover partitions that have none, or 0, or one behind their end.

    While the table recovers, records of the inputs are read and thrown away; the seek afterwards brings them back. But
    it leaves out partitions without a committed offset, so what was read of those would be lost (seen after a kill -9
    within the first commit interval). They are set to their first record; below it, auto_offset_reset leads there.
    Where a topic was made anew, the committed offset lies behind where our own account begins.
    """

    async def seek_all() -> None:
        await type(consumer).perform_seek(consumer)
        for tp in inputs:
            committed, start = consumer._committed_offset.get(tp), starts((tp.topic, tp.partition))  # noqa: SLF001
            if not committed:
                await consumer.seek(tp, 0)
            elif start is not None and start < committed:
                consumer._committed_offset[tp] = None  # noqa: SLF001 - what is below it may be committed again
                await consumer.seek(tp, start)

    consumer.perform_seek = seek_all


def override_commit(consumer: Any, inputs: set[TP], committable: Callable[[tuple[str, int]], int | None]) -> None:
    """Let Faust commit what our own account says and nothing else (see streams/input_offsets.py).

    Of all inputs: it would pass over one of which nothing was acknowledged yet, as when all of it are marks of
    transactions.
    """
    for tp in inputs:
        consumer._acked[tp]  # noqa: SLF001 - looking makes it known

    def new_offset(tp: TP) -> int | None:
        consumer._acked[tp].clear()  # noqa: SLF001
        consumer._acked_index[tp].clear()  # noqa: SLF001
        return committable((tp.topic, tp.partition))

    consumer._new_offset = new_offset  # noqa: SLF001


def stable_end(consumer: Any, tp: TP) -> int | None:
    """Return the end of what is committed in a partition, as the last fetch told it; None for one that is not ours.

    Where its topic is gone the broker is asked for it, so that it is noticed when it is there again: aiokafka itself
    asks every five minutes.
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
    """Join the group anew when partitions of an input are missing that are there; tells whether that was needed.

    A static member that comes back within its session is given what it had. If a topic was not there then, it would be
    read by nobody for ever: aiokafka asks again only when the metadata changes after it has joined.
    """
    client = consumer._thread._ensure_consumer()  # noqa: SLF001
    given = {topic: {tp.partition for tp in inputs if tp.topic == topic} for topic in topics}
    every = set().union(*given.values())
    there = {topic: client.partitions_for_topic(topic) or set() for topic in topics}
    if all(every & there[topic] <= partitions for topic, partitions in given.items()):
        return False
    consumer._thread.thread_loop.call_soon_threadsafe(client._coordinator.request_rejoin)  # noqa: SLF001
    return True


def watch_heartbeats(consumer: Any, callback: Callable[[], None]) -> None:
    """Call `callback` at each heartbeat that the group's coordinator has confirmed; a second call does nothing.

    Called in the consumer's thread. When a heartbeat task dies without a word, as one did, the group gives the
    partitions to another member, and this process would go on with them.
    """
    on_heartbeat(consumer._thread._consumer, callback)  # noqa: SLF001
