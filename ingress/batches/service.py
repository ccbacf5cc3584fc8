"""Find and cancel batches: by the row, the proposal made here, or the event that no scheduler has read yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from core.clock import epoch_ms
from core.deliveries import BATCH_OUTCOMES
from core.errors import InvalidRequest, NotFound, RequestError, Unavailable
from core.kafka.log_reader import LogReader, LogRecord
from core.settings.models import Settings
from ingress.batches.commands import BatchCommands
from ingress.batches.directory import BatchDirectory
from ingress.batches.idempotency import may_have_key
from schemas import ids, topics
from schemas.batches import BATCH_ENDED, Batch
from schemas.codec import BATCH, EVENT, SchemaError
from schemas.framing import FramingError
from schemas.headers import find
from schemas.ids import TaskId
from schemas.records import Delivery


def end_notification(batch: Batch, found: list[Delivery], event: str | None) -> Delivery:
    """Return the delivery that announced the end of a batch; raises InvalidRequest when there is none."""
    ends = [one for one in found if one["event"] in BATCH_OUTCOMES and event in (None, one["event"])]
    if ends:
        return ends[-1]
    batch_id, state = batch["id"], batch["state"]
    if not batch["callback_url"]:
        raise InvalidRequest(f"batch {batch_id} names no callback_url, and no setting does")
    if state not in BATCH_ENDED:
        raise InvalidRequest(f"batch {batch_id} has not ended yet")
    if event not in (None, f"batch.{state}"):
        raise InvalidRequest(f"no {event} delivery for {batch_id}: the batch ended as {state}", field="event")
    raise InvalidRequest(
        f"no end-of-batch delivery for {batch_id}: none sent yet (allow a few seconds), or older than eight days"
    )


OTHER_WAIT_S = 2.0
"""Wait for the row of a batch that another ingress created: milliseconds, unless the scheduler is behind."""
RECENT_S = 15 * 60
"""An older batch without a row does not exist: a scheduler that is this far behind raises alerts."""
CLOCK_SKEW_MS = 2_000
DECISION_TIMEOUT_S = 2.0
LOOKBACK_MS, SEARCH_TIMEOUT_S = 10_000, 3.0
"""How far back accepted batches without a row are searched; a scheduler that is not behind needs milliseconds."""


class BatchNotCancellable(RequestError):
    """The batch has ended already."""

    code = "batch_not_cancellable"


class BatchOperations:
    """Find and cancel batches."""

    def __init__(
        self, settings: Settings, *, log_reader: LogReader, directory: BatchDirectory, commands: BatchCommands
    ) -> None:
        self._partitions = settings.kafka.partitions
        self._window_s = settings.streams.idempotency_window_s
        self._events = settings.topic(topics.events(1))
        self._log_reader = log_reader
        self._directory = directory
        self._commands = commands

    async def find(self, text: str, *, owner: str) -> Batch:
        """Return a batch in its present state; raises NotFound for foreign and unknown ids, and Unavailable."""
        try:
            identity = ids.parse_batch(text)
        except ids.IdError:
            raise _unknown(text) from None
        batch = self._directory.get(text)
        keyed = may_have_key(identity, window_s=self._window_s)
        if batch is None and (keyed or self._is_recent(identity)) and not self._directory.removed(text):
            batch = await self._directory.wait_until(text, lambda _: True, seconds=OTHER_WAIT_S)
            if batch is None:
                batch = await self._from_event(identity)
        if batch is None:
            self._directory.check_read()
        if batch is None or batch["owner"] != owner:
            raise _unknown(text)
        return batch

    async def cancel(self, text: str, *, owner: str) -> Batch:
        """Cancel a batch and return it; a second cancel is no error. Raises NotFound and Unavailable.

        Also raises BatchNotCancellable when the batch, or all its requests, have ended in another way.
        """
        batch = await self.find(text, owner=owner)
        if batch["state"] in ("cancelling", "cancelled"):
            return batch
        if batch["state"] not in ("validating", "in_progress"):
            raise _ended(batch)
        await self._commands.cancel(batch)
        row = await self._directory.wait_until(
            text, lambda found: found["state"] not in ("validating", "in_progress"), seconds=DECISION_TIMEOUT_S
        )
        if row is None or row["state"] in ("validating", "in_progress"):
            # The cancel is in the log and comes before everything that is written from now on.
            return {**(row or batch), "state": "cancelling", "cancelling_ms": epoch_ms()}
        if row["state"] not in ("cancelling", "cancelled"):
            raise _ended(row)
        return row

    async def user_of(self, file_id: str) -> str | None:
        """Return the id of a batch that still needs an input file; raises Unavailable.

        A batch that another ingress accepted within the last seconds may have no row yet: the log is searched for its
        event.
        """
        self._directory.check_read()
        if users := self._directory.users_of(file_id):
            return users[0]
        begin_ms = epoch_ms() - LOOKBACK_MS
        try:
            async with asyncio.timeout(SEARCH_TIMEOUT_S):
                for partition in range(self._partitions):
                    tp = TopicPartition(self._events, partition)
                    async for batch in self._created_since(tp, begin_ms):
                        if batch["input_file_id"] == file_id and self._directory.get(batch["id"]) is None:
                            return batch["id"]
        except (KafkaError, OSError, TimeoutError):
            raise Unavailable("could not check in time whether the file is in use; nothing was deleted") from None
        return next(iter(self._directory.users_of(file_id)), None)  # its row may have come meanwhile

    async def _created_since(self, tp: TopicPartition, begin_ms: int) -> AsyncIterator[Batch]:
        begin = await self._log_reader.offset_at(tp, begin_ms)
        if begin is None:
            return
        _, end = (await self._log_reader.bounds([tp]))[tp]
        async for found in self._log_reader.read_range(tp, begin, end):
            if (find(found.headers, "ce_type") or b"").endswith(b".batch_created"):
                batch = _proposed(found)
                if batch is not None:
                    yield batch

    async def _from_event(self, identity: TaskId) -> Batch | None:
        if identity.partition >= self._partitions:
            return None
        tp = TopicPartition(self._events, identity.partition)
        key = identity.batch().encode()
        from_s = max(identity.time_s, int(time.time() - RECENT_S))
        return _proposed(await self._log_reader.find(tp, key, from_ms=from_s * 1000 - CLOCK_SKEW_MS))

    def _is_recent(self, identity: TaskId) -> bool:
        inside = identity.partition < self._partitions
        return inside and abs(time.time() - identity.time_s) < RECENT_S


def _proposed(found: LogRecord | None) -> Batch | None:
    """Return the batch row that an event proposes."""
    if found is None or found.value is None:
        return None
    try:
        change = EVENT.decode(found.value)["change"]
        return BATCH.decode(change["batch"]) if change is not None and change["batch"] is not None else None
    except (FramingError, SchemaError):
        return None


def _ended(batch: Batch) -> BatchNotCancellable:
    what = "all its requests have ended" if batch["state"] == "finalizing" else f"it has ended ({batch['state']})"
    return BatchNotCancellable(f"batch {batch['id']} cannot be cancelled: {what}")


def _unknown(text: str) -> NotFound:
    return NotFound(f"there is no batch {text[:80]}")
