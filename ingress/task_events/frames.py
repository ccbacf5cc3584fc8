"""The frames of a task's events other than those of its text, and the stored result that the text ends with.

Event frames carry no id, so that a client's last id stays that of the last frame of text; the end has its own id.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

import orjson
from aiokafka import TopicPartition

from core.embedding import embedded_frame
from core.errors import Unavailable
from core.kafka.log_reader import LogReader
from core.kafka.task_records import result_of
from core.settings.models import Settings
from core.storage.blobs import BlobCorrupt, BlobMissing, BlobStore
from ingress.api.openai_error import error_frame
from ingress.http import sse
from ingress.read_model.task_lookup import result_body
from ingress.task_events.transcript import END
from ingress.waiting.streaming import StreamError, from_result
from schemas import ids, topics
from schemas.records import Result, Status

log = logging.getLogger(__name__)

KEEP_ALIVE = sse.KEEP_ALIVE
DONE = b"id: %b\n" % (END.tag or "").encode() + sse.frame(sse.DONE)
SHUTDOWN = StreamError(
    "this process is shutting down; the task continues, reconnect with Last-Event-ID",
    "server_error",
    "server_shutdown",
)
BROKEN = StreamError("an unexpected error occurred; reconnect with Last-Event-ID", "server_error", "internal_error")
INTERRUPTED = StreamError(
    "the text read before belongs to another attempt; open the events again without Last-Event-ID",
    "server_error",
    "stream_interrupted",
)
LOST = StreamError("the text of this task is no longer stored completely", "server_error", "text_lost")
EXPIRED = StreamError("the result of this task is no longer stored", "invalid_request_error", "expired")


def status_of(row: Status) -> bytes:
    """Encode the status of a row."""
    progress = 100 if row["state"] == "completed" else row["progress"]
    return status_frame(
        row["id"], row["state"], row["attempt"], progress, code=row["error_code"], message=row["error_message"]
    )


def status_frame(
    task_id: str, state: str, attempt: int, progress: int = 0, *, code: str | None = None, message: str | None = None
) -> bytes:
    """Encode a status; members without a value are omitted."""
    members: dict[str, Any] = {
        "id": ids.parse(task_id).task(),
        "status": state,
        "attempt": attempt,
        "progress": progress,
        "error_code": code,
        "error_message": message,
    }
    return _named(b"status", {name: value for name, value in members.items() if value is not None})


def progress_frame(task_id: str, progress: int) -> bytes:
    """Encode the progress of a task, percent."""
    return _named(b"progress", {"id": ids.parse(task_id).task(), "progress": progress})


def failure_frame(failure: StreamError) -> bytes:
    """Encode an error; an error object of the upstream is passed on unchanged."""
    return sse.frame(error_frame(failure.result, message=failure.message, kind=failure.type, code=failure.code))


def _named(event: bytes, members: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event, orjson.dumps(members))


RETRY_S = 0.5


class EventOutcome(NamedTuple):
    """How a task ended."""

    row: Status
    result: Result | None
    text: list[bytes] | None
    """The payloads of all frames; None when only chunk records may have them."""

    @property
    def failure(self) -> StreamError | None:
        """Return the error of a task that did not complete; None for one that did."""
        if self.row["state"] == "expired":
            return EXPIRED
        if self.result is not None:
            return None if self.result["state"] == "completed" else from_result(self.result)
        if self.row["state"] == "completed":
            return LOST
        return StreamError(self.row["error_message"] or "the task failed", "server_error", self.row["error_code"])


class OutcomeReader:
    """Read the stored results of tasks."""

    def __init__(self, settings: Settings, *, log_reader: LogReader, blobs: BlobStore) -> None:
        self._settings = settings
        self._log_reader = log_reader
        self._blobs = blobs

    async def read(self, row: Status) -> EventOutcome:
        """Read the result of an ended row; retries until Kafka and the object store answer."""
        while True:
            try:
                return await self._read(row)
            except Unavailable as error:
                log.warning(
                    "cannot read the result of %s: %s",
                    row["id"],
                    error,
                    extra={"event": "result_read_failed", "task_id": row["id"]},
                )
                await asyncio.sleep(RETRY_S)

    async def _read(self, row: Status) -> EventOutcome:
        if row["state"] == "expired" or row["result_offset"] is None:
            return EventOutcome(row, None, None)
        home = ids.parse(row["id"])
        tp = TopicPartition(self._settings.topic(topics.results(home.level)), home.partition)
        result = result_of(await self._log_reader.read(tp, row["result_offset"]), row["id"])
        if result is None:
            return EventOutcome(row, None, None)
        try:
            body = await result_body(self._blobs, result)
        except (BlobMissing, BlobCorrupt):
            return EventOutcome(row, result, None)
        return EventOutcome(row, result, frames_of(result, body))


def frames_of(result: Result, body: bytes | None) -> list[bytes] | None:
    """Return the payloads of a result; a response that is no stream is one payload."""
    if result["content_type"].startswith(sse.MEDIA_TYPE):
        return None if body is None else sse.payloads(body)
    completed = result["state"] == "completed"
    if result["chunks"] or (body is None and not completed):
        return None
    return [embedded_frame(body, result["content_type"])] if completed and body else []
