"""Write batch commands to Kafka: create and cancel are events for the scheduler of the batch partition."""

from __future__ import annotations

import itertools

from core.clock import epoch_ms
from core.errors import InvalidRequest, WriteUnconfirmed
from core.kafka.producer import Producer
from core.queues import QueueDirectory
from core.settings.models import Settings
from ingress.batches.request import BatchRequest
from schemas.batches import Batch, BatchFile, initial_progress
from schemas.codec import BATCH
from schemas.events import batch_request_event, change, event
from schemas.ids import MODE_CODES, Serials, TaskId
from schemas.partitioning import home_partition
from schemas.records import Event, Queue

LEVEL = 1


class BatchCommands:
    """Writes commands to the owner partition of a batch."""

    def __init__(self, settings: Settings, *, producer: Producer, queues: QueueDirectory, serials: Serials) -> None:
        self._settings = settings
        self._producer = producer
        self._queues = queues
        self._serials = serials
        self._spread = itertools.count()

    async def create(
        self,
        wanted: BatchRequest,
        file: BatchFile,
        *,
        owner: str,
        queue: str,
        identity: TaskId | None = None,
        traceparent: bytes | None = None,
    ) -> Batch:
        """Write a new batch and return it as it was proposed; raises RequestError and Unavailable."""
        known = await self.queue(queue, wanted.endpoint, owner)
        now_ms = epoch_ms()
        identity = identity or self._identity(known, now_s=now_ms // 1000)
        batch = proposed(wanted, file, batch_id=identity.batch(), owner=owner, queue=known, now_ms=now_ms)
        batch["callback_url"] = wanted.callback_url or self._settings.batches.callback_url or None
        batch["traceparent"] = None if traceparent is None else traceparent.decode()
        made = event(
            "batch_created",
            at_ms=now_ms,
            task_id=batch["id"],
            owner=owner,
            queue=known["name"],
            change=change(batch=BATCH.encode(batch)),
        )
        try:
            await self._write(made, traceparent=traceparent)
        except WriteUnconfirmed as error:
            raise WriteUnconfirmed(
                f"Kafka did not confirm batch {batch['id']} in time, so it may or may not be accepted; look with "
                f"GET /v1/batches/{batch['id']} before you create it again"
            ) from error
        return batch

    async def cancel(self, batch: Batch) -> None:
        """Ask the scheduler to cancel a batch; raises Unavailable."""
        now_ms = epoch_ms()
        asked = event(
            "batch_cancel", at_ms=now_ms, task_id=batch["id"], owner=batch["owner"], reason="cancelled on request"
        )
        await self._write(asked)

    async def _write(self, made: Event, *, traceparent: bytes | None = None) -> None:
        record = batch_request_event(self._settings.kafka.topic_prefix, made, traceparent=traceparent)
        await self._producer.send(*record)

    def _identity(self, queue: Queue, *, now_s: int) -> TaskId:
        home = home_partition(
            queue["name"], next(self._spread), width=queue["width"], partitions=self._settings.kafka.partitions
        )
        return self._serials.next(
            queue_number=queue["number"], level=LEVEL, mode=MODE_CODES["batch"], now_s=now_s, partition=home
        )

    async def queue(self, name: str, endpoint: str, owner: str) -> Queue:
        """Return a queue, registered when it is new; raises RequestError and Unavailable."""
        if (known := self._queues.get(name)) is not None:
            return known
        if not self._settings.ingress.auto_register:
            raise InvalidRequest(f"queue {name} is not registered and ingress.auto_register is off", field="queue")
        return await self._queues.register(self._producer, name, endpoint=endpoint, owner=owner)


def proposed(wanted: BatchRequest, file: BatchFile, *, batch_id: str, owner: str, queue: Queue, now_ms: int) -> Batch:
    """Build the row of a new batch."""
    return {
        "state": "validating",
        "id": batch_id,
        "owner": owner,
        "queue": queue["name"],
        "queue_number": queue["number"],
        "endpoint": wanted.endpoint,
        "input_file_id": file["id"],
        "input": file["blob"],
        "completion_window": wanted.completion_window,
        "metadata": wanted.metadata,
        "replace": wanted.replace,
        "callback_url": wanted.callback_url,
        "output_expires_s": wanted.output_expires_s,
        "traceparent": None,
        "stamp_s": now_ms // 1000,
        "created_ms": now_ms,
        "expires_ms": now_ms + wanted.window_s * 1000,
        **initial_progress(),
        "source_offset": -1,
        "updated_ms": now_ms,
    }
