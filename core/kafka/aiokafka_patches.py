"""All private parts of aiokafka that Headrace depends on, in one module; canary tests check that they still exist.

What is replaced is in `patch_connections` here and in core/kafka/fetching.py; everything else reads or calls what has
no public name. An update of aiokafka that changes one of them fails tests/unit/core/kafka/test_aiokafka_patches.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError

log = logging.getLogger(__name__)

_send = AIOKafkaConnection.send
_update = AIOKafkaClient._metadata_update  # noqa: SLF001

ABSENT_S = 0.2
"""Between two requests for the metadata of a topic that does not exist."""


def patch_connections() -> None:
    """Replace two parts of aiokafka's connections and clients; idempotent.

    Requests on a connection that has just broken fail with a KafkaError on uvloop, too: aiokafka expects an OSError
    from a write, and uvloop raises a RuntimeError until aiokafka has noticed the break. When a broker is killed in that
    moment, the error ends aiokafka's task that refreshes the metadata, without a log line. From then on every search
    for a group coordinator waits for ever: no commit, no heartbeat, and after its session the group assigns the
    partitions to another member, while this one continues with them.

    And the metadata of topics that do not exist is requested at a bounded rate.
    """
    AIOKafkaConnection.send = _send_or_kafka_error
    AIOKafkaClient._metadata_update = _spaced_update  # noqa: SLF001


def _send_or_kafka_error(self: Any, request: Any, expect_response: bool = True) -> Any:
    try:
        return _send(self, request, expect_response)
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error


async def _spaced_update(self: Any, cluster: Any, topics: Collection[str] | None) -> bool:
    """Ask for metadata, but for topics that the last answer did not have only after a pause.

    A consumer asks again as soon as it has the answer, as long as a topic that it reads does not exist. A follower of a
    deleted topic sent 1,100 requests per second, and so did every other reader of it.
    """
    absent, asked_at = getattr(self, "absent_topics", (frozenset(), 0.0))
    if cluster is self.cluster and absent.intersection(topics or ()):
        await asyncio.sleep(asked_at + ABSENT_S - time.monotonic())
    updated: bool = await _update(self, cluster, topics)
    if cluster is self.cluster:
        missing = frozenset(topic for topic in topics or () if not cluster.partitions_for_topic(topic))
        self.absent_topics = missing, time.monotonic()
    return updated


def client_of(owner: Any) -> Any:
    """Return the AIOKafkaClient of a consumer or of an admin client, whose name is not public, or of a producer."""
    return owner.client if isinstance(owner, AIOKafkaProducer) else owner._client  # noqa: SLF001


async def send_request(admin: Any, request: Any) -> Any:
    """Send a request of an admin client to any node."""
    return await admin._send_request(request)  # noqa: SLF001


async def refresh_metadata(consumer: Any, topic: str) -> None:
    """Fetch the metadata, and wait until a topic is part of it: that of a new topic is not in the first metadata."""
    await client_of(consumer).force_metadata_update()
    await wait_for_metadata(consumer, topic)


async def wait_for_metadata(owner: Any, topic: str) -> None:
    """Wait until the metadata of a consumer or producer has a topic; `partitions_for_topic` reads only the cache."""
    await client_of(owner)._wait_on_metadata(topic)  # noqa: SLF001


async def add_topics(client: Any, topics: Collection[str]) -> None:
    """Add topics to those whose metadata a client keeps; the public call replaces them."""
    known = client._topics  # noqa: SLF001
    if not set(topics) <= known:
        await client.set_topics({*known, *topics})


def assignment_of(consumer: Any) -> Any:
    """Return the assignment of a consumer with the state of each partition; None when it has none."""
    return consumer._subscription.subscription.assignment  # noqa: SLF001


def on_heartbeat(consumer: Any, confirmed: Callable[[], None]) -> None:
    """Call `confirmed` at each heartbeat of a started consumer that its group confirms; a second call does nothing.

    Schedulers and dispatchers must know when they may have lost the partitions that they still read.
    """
    coordinator = consumer._coordinator  # noqa: SLF001
    beat = coordinator._do_heartbeat  # noqa: SLF001
    if getattr(beat, "observed", False):
        return

    async def observed() -> bool:
        accepted: bool = await beat()
        if accepted:
            confirmed()
        return accepted

    observed.observed = True  # type: ignore[attr-defined]  # our own mark
    coordinator._do_heartbeat = observed  # noqa: SLF001


async def discard(producer: AIOKafkaProducer) -> None:
    """Close a producer without writing what it still holds.

    aiokafka's own stop() waits until the buffer is empty, without a bound while the broker is away; its parts can be
    closed separately.
    """
    producer._closed = True  # noqa: SLF001
    if producer._sender is not None:  # noqa: SLF001
        try:
            await producer._sender.close()  # noqa: SLF001
        except (KafkaError, AssertionError):
            log.debug("the sender of a discarded producer had already failed")
    await producer.client.close()
