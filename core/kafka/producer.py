"""An idempotent acks=all producer that fails fast and is replaced after a failure.

aiokafka's sender ends permanently at an out-of-order sequence (aiokafka 1017), and a record without acknowledgement
stays in its buffer and is written once the broker is back, after the caller has received an error. So a producer that
failed or timed out is discarded with its buffer and replaced; meanwhile writes fail immediately.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, NotEnoughReplicasError, UnknownTopicOrPartitionError

from core.errors import Unavailable, WriteUnconfirmed
from core.kafka.aiokafka_patches import discard, wait_for_metadata
from core.kafka.record_signature import RecordSigner
from core.settings.models import Settings
from schemas.kafka_record import AddressedRecord, Record

__all__ = ["Producer", "Record"]

log = logging.getLogger(__name__)

REBUILD_BACKOFF_S = 0.5
ABSENT_PART = 0.8
"""Part of the request timeout that a write waits for a topic which the broker does not know."""
BATCH_BYTES = 262_144
"""With one request in flight per broker the batch size limits the throughput: the default of 16 KB halves it."""


class Producer:
    """Writes records and returns once all in-sync replicas have them."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        linger_ms: int = 0,
        durable: bool = True,
        fence: Callable[[], None] | None = None,
    ) -> None:
        """Create a producer without connecting.

        Args:
            durable: False waits for the leader only (acks=1), for records that can be reproduced, such as chunks.
            fence: called right before each request; ends a process that must not write any longer.
        """
        self._settings = settings
        self._name = name
        self._linger_ms = linger_ms
        self._durable = durable
        self._fence = fence
        self._timeout_s = settings.kafka.request_timeout_s
        self._producer: AIOKafkaProducer | None = None
        self._rebuilding: asyncio.Task[None] | None = None
        self._stopped = False
        self._signer = RecordSigner(settings)

    async def start(self) -> None:
        """Connect; raises Unavailable when no broker answers."""
        self._producer = await self._connect()

    async def stop(self) -> None:
        """Flush the buffer, at most for the request timeout, and close."""
        self._stopped = True
        if self._rebuilding is not None:
            self._rebuilding.cancel()
        if (producer := self._producer) is not None:
            self._producer = None
            try:
                await asyncio.wait_for(producer.stop(), self._timeout_s)
            except (TimeoutError, KafkaError):
                await discard(producer)

    @property
    def healthy(self) -> bool:
        """Return whether a write would be attempted now."""
        return self._producer is not None

    async def enqueue(self, topic: str, partition: int, record: Record) -> asyncio.Future[Any]:
        """Buffer one record; the future returns aiokafka's RecordMetadata. For `confirm`, which limits the wait."""
        producer = self._current()
        await self._await_topics(producer, (topic,))
        signed = self._signer.headers if self._signer.signs(topic) else _unsigned
        try:
            future: asyncio.Future[Any] = await producer.send(
                topic,
                record.value,
                key=record.key,
                partition=partition,
                timestamp_ms=record.timestamp_ms,
                headers=signed(record.value, record.headers),
            )
            return future
        except (KafkaError, AssertionError) as error:
            self._failed(producer, error)
            raise Unavailable from error

    async def send(self, topic: str, partition: int, record: Record) -> int:
        """Write one record and return its offset; raises Unavailable when it was not written.

        Raises WriteUnconfirmed, a subclass of Unavailable, when it was sent and not acknowledged: a broker that hangs
        and recovers may still write it from its socket buffer.
        """
        producer = self._current()
        future: asyncio.Future[Any] | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                future = await self.enqueue(topic, partition, record)
                # Shielded: a cancelled caller must not cancel the batch that others share.
                return int((await asyncio.shield(future)).offset)
        except (TimeoutError, KafkaError) as error:
            self._failed(producer, error)
            if future is None or isinstance(error, NotEnoughReplicasError):
                raise Unavailable from error
            raise WriteUnconfirmed from error

    async def send_all(self, records: Sequence[AddressedRecord | tuple[str, int, Record]]) -> None:
        """Write records and wait for all acknowledgements; raises Unavailable if one is missing."""
        producer = self._current()
        try:
            async with asyncio.timeout(self._timeout_s):
                futures = [await self.enqueue(topic, partition, record) for topic, partition, record in records]
                await asyncio.shield(asyncio.gather(*futures))
        except (TimeoutError, KafkaError) as error:
            self._failed(producer, error)
            raise Unavailable from error

    async def send_batch(self, records: Mapping[tuple[str, int], Sequence[Record]]) -> dict[tuple[str, int], list[int]]:
        """Write records in one batch per partition; returns their offsets in order once all are durable.

        Batching here avoids one future and one call per record, the largest cost of producing a record.
        """
        producer = self._current()
        # Of all topics before anything is written: what was written would be repeated with the rest.
        await self._await_topics(producer, {topic for topic, _ in records})
        try:
            async with asyncio.timeout(self._timeout_s):
                packs = [self._pack(producer, topic, partition, pairs) for (topic, partition), pairs in records.items()]
                # A single batch needs no task.
                offsets = [await packs[0]] if len(packs) == 1 else await asyncio.gather(*packs)
        except (TimeoutError, KafkaError, AssertionError) as error:
            self._failed(producer, error)
            raise Unavailable from error
        return dict(zip(records, offsets, strict=True))

    async def _await_topics(self, producer: AIOKafkaProducer, topics: Iterable[str]) -> None:
        """Wait for topics that do not exist; raises Unavailable when one stays away.

        Nothing is buffered by then, so the producer need not be discarded: others write to other topics with it.
        """
        for topic in topics:
            if producer.client.cluster.partitions_for_topic(topic):
                continue
            try:
                async with asyncio.timeout(self._timeout_s * ABSENT_PART):
                    await wait_for_metadata(producer, topic)
            except (TimeoutError, UnknownTopicOrPartitionError) as error:
                raise Unavailable(f"there is no topic {topic} now; nothing was accepted, try again later") from error
            except KafkaError as error:
                self._failed(producer, error)
                raise Unavailable from error

    async def _pack(
        self, producer: AIOKafkaProducer, topic: str, partition: int, records: Sequence[Record]
    ) -> list[int]:
        pending: list[tuple[int, asyncio.Future[Any]]] = []
        builder, count = producer.create_batch(), 0
        signed = self._signer.headers if self._signer.signs(topic) else _unsigned
        for record in records:
            headers = signed(record.value, record.headers)
            for _ in range(2):
                done = builder.append(
                    key=record.key, value=record.value, timestamp=record.timestamp_ms, headers=headers
                )
                if done is not None:
                    count += 1
                    break
                builder.close()
                pending.append((count, await producer.send_batch(builder, topic, partition=partition)))
                builder, count = producer.create_batch(), 0
        builder.close()
        pending.append((count, await producer.send_batch(builder, topic, partition=partition)))
        offsets: list[int] = []
        for size, future in pending:
            base = (await future).offset
            offsets.extend(range(base, base + size))
        return offsets

    def _current(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise Unavailable
        return self._producer

    def _failed(self, producer: AIOKafkaProducer, error: BaseException) -> None:
        """Discard a failed producer with its buffer, and start to create another."""
        if self._producer is not producer or self._stopped:
            return
        log.warning(
            "producer %s failed: %s; building another",
            self._name,
            str(error) or type(error).__name__,
            extra={"event": "producer_failed"},
        )
        self._producer = None
        self._rebuilding = asyncio.create_task(self._rebuild(producer), name=f"rebuild-{self._name}")

    async def _rebuild(self, dead: AIOKafkaProducer) -> None:
        await discard(dead)
        began = time.monotonic()
        while not self._stopped:
            try:
                self._producer = await self._connect()
            except Unavailable:
                await asyncio.sleep(REBUILD_BACKOFF_S)
                continue
            log.info(
                "producer %s is back after %.1f s",
                self._name,
                time.monotonic() - began,
                extra={"event": "producer_rebuilt"},
            )
            return

    async def _connect(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka.bootstrap,
            client_id=self._name,
            acks="all" if self._durable else 1,
            enable_idempotence=self._durable,
            linger_ms=self._linger_ms,
            max_batch_size=BATCH_BYTES,
            max_request_size=self._settings.kafka.max_message_bytes,
            request_timeout_ms=int(self._timeout_s * 1000),
            retry_backoff_ms=50,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            await discard(producer)
            raise Unavailable(f"no Kafka broker answers at {self._settings.kafka.bootstrap}") from error
        except asyncio.CancelledError:
            await discard(producer)
            raise
        if self._fence is not None:
            fenced(producer, self._fence)
        return producer


def _unsigned(_: bytes | None, headers: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return headers


def fenced(producer: AIOKafkaProducer, fence: Callable[[], None]) -> None:
    """Call `fence` before each request: aiokafka sends its buffer when a suspended process resumes."""
    send = producer.client.send

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        fence()
        return await send(*args, **kwargs)

    producer.client.send = guarded
