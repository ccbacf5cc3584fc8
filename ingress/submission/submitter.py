"""Write validated tasks and cancels to Kafka: register the queue, assign the id, store the body, produce the record."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import NamedTuple

from core.clock import epoch_ms
from core.errors import InvalidRequest, Unavailable, WriteUnconfirmed
from core.kafka.producer import Producer, Record
from core.queues import QueueDirectory
from core.settings.callback_policy import callback_policy
from core.settings.models import Settings
from core.storage.blobs import BlobStore
from schemas import topics
from schemas.codec import TASK
from schemas.events import cancel_event
from schemas.headers import headers
from schemas.ids import MODE_CODES, Serials, TaskId
from schemas.partitioning import home_partition, key_spread
from schemas.records import Queue, Task
from schemas.validation import Invalid, check_callback


class Ticket(NamedTuple):
    """What is held in memory of a task while a request waits for it; not its body, as thousands may wait."""

    id: TaskId
    key: bytes
    owner: str
    deadline_ms: int
    keyed: bool = False
    """Whether it has an Idempotency-Key: then its client may retry, and a disconnect cancels nothing."""
    stored: bool = False
    """Whether its body is in the object store."""

    @property
    def text(self) -> str:
        """Return the TASK- id."""
        return self.key.decode()


class Submitter:
    """Write tasks and cancels to their home partition."""

    def __init__(
        self, settings: Settings, *, producer: Producer, queues: QueueDirectory, blobs: BlobStore, serials: Serials
    ) -> None:
        self._producer = producer
        self._queues = queues
        self._blobs = blobs
        self._serials = serials
        self._spread = itertools.count()
        self._partitions = settings.kafka.partitions
        self._inline_bytes = settings.storage.inline_bytes
        self._callbacks = callback_policy(settings)
        self._auto_register = settings.ingress.auto_register
        self._tasks = [settings.topic(topics.tasks(level)) for level in (0, 1)]
        self._prefix = settings.kafka.topic_prefix

    async def prepare(self, task: Task, *, owner: str, traceparent: bytes | None = None) -> tuple[Ticket, Record]:
        """Give a task its id, owner and time, and move a big body to the object store; raises Unavailable.

        Nothing is accepted yet. The id is known before the write, so that a waiter can be there before the answer.
        """
        self._check_callback(task["callback_url"])
        queue = self._queues.get(task["queue"]) or await self._register(task, owner)
        now_ms = epoch_ms()
        key = task["idempotency_key"]
        home = home_partition(
            queue["name"],
            next(self._spread) if key is None else key_spread(owner, key),
            width=queue["width"],
            partitions=self._partitions,
        )
        task_id = self._serials.next(
            queue_number=queue["number"],
            level=task["level"],
            mode=MODE_CODES[task["mode"]],
            now_s=now_ms // 1000,
            partition=home,
        )
        text = str(task_id)
        task["id"], task["owner"], task["created_ms"] = text, owner, now_ms
        data = task["data"]
        if isinstance(data, bytes) and len(data) > self._inline_bytes:
            task["data_ref"] = await self._blobs.put(data, name=_body_name(text), media_type="application/json")
            task["data"] = None
        elif task["data_ref"] is not None:  # an upload, stored while it arrived
            task["data_ref"] = await self._blobs.move(task["data_ref"], _body_name(text))
        described = headers(
            kind="task",
            ce_id=text,
            at_ms=now_ms,
            queue=task["queue"],
            level=task["level"],
            owner=owner,
            deadline_ms=now_ms + task["timeout_ms"],
            traceparent=traceparent,
        )
        encoded = text.encode()
        deadline_ms, stored = now_ms + task["timeout_ms"], task["data_ref"] is not None
        ticket = Ticket(task_id, encoded, owner, deadline_ms, keyed=key is not None, stored=stored)
        return ticket, Record(encoded, TASK.encode(task), described, now_ms)

    def _check_callback(self, url: str | None) -> None:
        """Refuse a callback URL that the settings do not allow, in every API."""
        if url is None:
            return
        try:
            check_callback(url, self._callbacks)
        except Invalid as error:
            raise InvalidRequest(error.message, field=error.field) from None

    async def send(self, ticket: Ticket, record: Record) -> int:
        """Write the task and return its offset once every in-sync copy has it; raises Unavailable."""
        task_id = ticket.id
        try:
            return await self._producer.send(self._tasks[task_id.level], task_id.partition, record)
        except WriteUnconfirmed:  # it may be there, and then it needs its body
            raise
        except Unavailable:
            await self.forget(ticket)
            raise

    async def cancel(self, task_id: TaskId, *, owner: str | None, reason: str) -> None:
        """Write a cancel request for the scheduler; raises Unavailable."""
        now_ms = epoch_ms()
        await self._producer.send(*cancel_event(self._prefix, task_id, owner=owner, reason=reason, at_ms=now_ms))

    async def forget(self, ticket: Ticket) -> None:
        """Remove the stored body of a task that was not accepted; what cannot be removed now is swept away later."""
        if ticket.stored:
            with suppress(Unavailable):
                await self._blobs.remove(_body_name(ticket.text))

    async def _register(self, task: Task, owner: str) -> Queue:
        if not self._auto_register:
            raise InvalidRequest(
                f"queue {task['queue']} is not registered and ingress.auto_register is off", field="queue"
            )
        return await self._queues.register(self._producer, task["queue"], endpoint=task["endpoint"], owner=owner)


def _body_name(task_id: str) -> str:
    return f"tasks/{task_id}"
