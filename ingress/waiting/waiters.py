"""Open blocking and streaming requests: one follower reads all results and chunks and dispatches them by task id.

It has assigned partitions and no consumer group, because a rebalance must not interrupt a stream. Records that no
request waits for are not decoded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from aiokafka import TopicPartition

from core.bounded_set import BoundedSet
from core.errors import Unavailable
from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from schemas import topics
from schemas.codec import CHUNK, RESULT, SchemaError
from schemas.framing import FramingError
from schemas.records import Chunk, Result

log = logging.getLogger(__name__)

FULL_RETRY_S = 5
COMPLETED_CAPACITY = 10_000
"""Results delivered recently; a row follows its result within milliseconds."""


class Waiter(Protocol):
    """Callbacks of an open request; called by the shared follower, so they must return at once."""

    def on_result(self, result: Result) -> None:
        """Receive the result; it may arrive more than once."""

    def on_chunk(self, chunk: Chunk) -> None:
        """Receive a chunk of the stream."""

    def on_shutdown(self) -> None:
        """Stop waiting, because this process stops."""


class StreamObserver(Protocol):
    """Callbacks for every chunk of one task, on behalf of its viewers; called by the shared follower."""

    def on_chunk(self, chunk: Chunk, offset: int) -> None:
        """Receive a chunk of the stream with its offset."""

    def on_shutdown(self) -> None:
        """Stop waiting, because this process stops."""


class Waiters:
    """The open requests of this process and the follower that serves them."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._limit = settings.ingress.max_blocking_requests
        self._results = settings.topic(topics.results(0))
        self._by_key: dict[bytes, Waiter] = {}
        self._followers: dict[bytes, StreamObserver] = {}
        self._completed: BoundedSet[bytes] = BoundedSet(at_least=COMPLETED_CAPACITY)
        self._shutdown_listeners: list[Callable[[], None]] = []
        self._closing = False
        self.read_at: float | None = None
        self.tail = TopicFollower(
            settings,
            name=f"{name}-answers",
            topics=[self._results, settings.topic(topics.CHUNKS)],
            handle=self.feed,
            start="latest",
        )

    def __len__(self) -> int:
        return len(self._by_key)

    def check_room(self) -> None:
        """Raise Unavailable when the process has no room for another open request, or stops."""
        if self._closing:
            raise Unavailable("this process is shutting down; nothing was accepted, try again", retry_after_s=1)
        if len(self._by_key) >= self._limit:
            raise Unavailable(
                f"{self._limit} blocking and streaming requests are held already; nothing was accepted, try again or "
                "use response_mode callback",
                retry_after_s=FULL_RETRY_S,
            )

    @contextmanager
    def registered(self, key: bytes, waiter: Waiter) -> Iterator[None]:
        """Deliver result and chunks of a task while the block runs; to be entered before the task is written."""
        self.check_room()
        self._by_key[key] = waiter
        try:
            yield
        finally:
            del self._by_key[key]

    @contextmanager
    def observed(self, key: bytes, follower: StreamObserver) -> Iterator[None]:
        """Deliver the chunks of a task to its observer while the block runs; raises Unavailable during shutdown."""
        if self._closing:
            raise Unavailable("this process is shutting down; try again", retry_after_s=1)
        self._followers[key] = follower
        try:
            yield
        finally:
            del self._followers[key]

    def was_completed(self, key: bytes) -> bool:
        """Return whether the result of a task was delivered here recently; its row has ended, or is about to."""
        return key in self._completed

    def add_shutdown_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` when this process stops."""
        self._shutdown_listeners.append(listener)

    def shut_down(self) -> None:
        """Notify every open request that this process stops, and accept no more."""
        self._closing = True
        for waiter in list(self._by_key.values()):
            waiter.on_shutdown()
        for follower in list(self._followers.values()):
            follower.on_shutdown()
        for listener in self._shutdown_listeners:
            listener()

    def feed(self, tp: TopicPartition, records: Records) -> None:
        """Dispatch records to the requests that wait for them."""
        self.read_at = time.monotonic()
        if not self._by_key and not self._followers:
            return
        results = tp.topic == self._results
        for record in records:
            if record.key is None or record.value is None:
                continue
            waiter = self._by_key.get(record.key)
            follower = None if results else self._followers.get(record.key)
            if waiter is None and follower is None:
                continue
            try:
                if results:
                    self._outcome(record.key, RESULT.decode(record.value))
                else:
                    _piece(CHUNK.decode(record.value), record.offset, waiter, follower)
            except (FramingError, SchemaError) as error:
                log.warning(
                    "%s/%d@%d cannot be read: %s",
                    tp.topic,
                    tp.partition,
                    record.offset,
                    error,
                    extra={"event": "result_unreadable", "partition": tp.partition, "offset": record.offset},
                )

    def _outcome(self, key: bytes, result: Result) -> None:
        self._by_key[key].on_result(result)
        self._completed.add(key)


def _piece(chunk: Chunk, offset: int, waiter: Waiter | None, follower: StreamObserver | None) -> None:
    if waiter is not None:
        waiter.on_chunk(chunk)
    if follower is not None:
        follower.on_chunk(chunk, offset)
