"""The stored outcome of a task as frames: the whole text of a stream, or the one answer of another task."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from aiokafka import TopicPartition

from core.embedding import embedded_frame
from core.errors import Unavailable
from core.kafka.log_reader import LogReader
from core.settings.models import Settings
from core.storage.blobs import BlobCorrupt, BlobMissing, BlobStore
from ingress.http import sse
from ingress.read_model.task_lookup import result_body
from ingress.task_events import serialization
from ingress.waiting.streaming import StreamError, from_result
from schemas import ids, topics
from schemas.codec import RESULT, SchemaError
from schemas.framing import FramingError
from schemas.records import Result, Status

log = logging.getLogger(__name__)

RETRY_S = 0.5


class EventOutcome(NamedTuple):
    """How a task ended."""

    row: Status
    result: Result | None
    text: list[bytes] | None
    """The payloads of all frames; None when only chunk records may hold them."""

    @property
    def failure(self) -> StreamError | None:
        """Say why it did not end well; None for a good end."""
        if self.row["state"] == "expired":
            return serialization.EXPIRED
        if self.result is not None:
            return None if self.result["state"] == "completed" else from_result(self.result)
        if self.row["state"] == "completed":
            return serialization.LOST
        return StreamError(self.row["error_message"] or "the task failed", "server_error", self.row["error_code"])


class OutcomeReader:
    """Read the stored results of tasks."""

    def __init__(self, settings: Settings, *, log_reader: LogReader, blobs: BlobStore) -> None:
        self._settings = settings
        self._log_reader = log_reader
        self._blobs = blobs

    async def read(self, row: Status) -> EventOutcome:
        """Read what a row that has ended points to; waits for Kafka and the object store without end."""
        while True:
            try:
                return await self._read(row)
            except Unavailable as error:
                log.warning(
                    "outcome of %s: %s", row["id"], error, extra={"event": "result_read_failed", "task_id": row["id"]}
                )
                await asyncio.sleep(RETRY_S)

    async def _read(self, row: Status) -> EventOutcome:
        if row["state"] == "expired" or row["result_offset"] is None:
            return EventOutcome(row, None, None)
        home = ids.parse(row["id"])
        tp = TopicPartition(self._settings.topic(topics.results(home.level)), home.partition)
        found = await self._log_reader.read(tp, row["result_offset"])
        try:
            result = RESULT.decode(found.value) if found is not None and found.value is not None else None
        except (FramingError, SchemaError):
            result = None
        if result is None or result["id"] != row["id"]:
            return EventOutcome(row, None, None)
        try:
            body = await result_body(self._blobs, result)
        except (BlobMissing, BlobCorrupt):
            return EventOutcome(row, result, None)
        return EventOutcome(row, result, frames_of(result, body))


def frames_of(result: Result, body: bytes | None) -> list[bytes] | None:
    """Return the payloads that an outcome holds; a whole answer is one of them."""
    if result["content_type"].startswith(sse.MEDIA_TYPE):
        return None if body is None else sse.payloads(body)
    completed = result["state"] == "completed"
    if result["chunks"] or (body is None and not completed):
        return None
    return [embedded_frame(body, result["content_type"])] if completed and body else []
