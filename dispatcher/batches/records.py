"""Task records for the lines of a batch. Pure."""

from __future__ import annotations

from functools import cached_property

from dispatcher.batches.request_line import LineRequest, Replace, body_of
from schemas.batches import Batch
from schemas.broken_lines import CONTENT_TYPE, error_body
from schemas.codec import TASK
from schemas.common import Blob
from schemas.headers import headers
from schemas.ids import batch_line_id, parse_batch
from schemas.kafka_record import Record
from schemas.media_types import JSON
from schemas.records import Task
from schemas.validation import MAX_RETENTION_MS, MAX_TEXT, MAX_TIMEOUT_MS

OFFLINE = 1
AFTER_EXPIRY_MS = 3_600_000
"""A line must not time out by itself before its batch expires."""


class LineTasks:
    """Builds the tasks of one batch's lines."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._identity = parse_batch(batch["id"])
        self.endpoint = batch["endpoint"]

    @cached_property
    def _replace(self) -> Replace:
        """Parse it for the bodies only: output files are written whatever it contains."""
        return Replace.parse(self._batch["replace"])

    @property
    def names_model(self) -> bool:
        """Return whether the batch sets one model for all lines."""
        return "model" in self._replace.members

    def task_id(self, index: int) -> str:
        """Return the id of a line's task: the same in every process."""
        batch = self._batch
        return str(batch_line_id(self._identity, index, queue_number=batch["queue_number"], stamp_s=batch["stamp_s"]))

    def body(self, request: LineRequest) -> bytes:
        """Return the body that is sent upstream for a line."""
        return body_of(request, self._replace)

    def broken(self, index: int, custom_id: str | None, message: str, *, code: str, now_ms: int) -> Record:
        """Render the task of an invalid line."""
        request = LineRequest(custom_id, {}, b"")
        return self.record(index, request, error_body(message, code=code), now_ms=now_ms, content_type=CONTENT_TYPE)

    def record(
        self,
        index: int,
        request: LineRequest,
        data: bytes | Blob,
        *,
        now_ms: int,
        content_type: str = JSON,
    ) -> Record:
        """Render the task of a line; `data` is its body, or a reference to it."""
        batch, task_id = self._batch, self.task_id(index)
        model = self._replace.members.get("model", request.body.get("model"))
        timeout_ms = max(batch["expires_ms"] - now_ms, 0) + AFTER_EXPIRY_MS
        task: Task = {
            "queue": batch["queue"],
            "level": OFFLINE,
            "endpoint": batch["endpoint"],
            "data": data if isinstance(data, bytes) else None,
            "id": task_id,
            "mode": "batch",
            "data_ref": None if isinstance(data, bytes) else data,
            "model": model if isinstance(model, str) and len(model) <= MAX_TEXT else None,
            "owner": batch["owner"],
            "callback_url": None,
            "trace_id": batch["id"],
            "idempotency_key": None,
            "created_ms": now_ms,
            "timeout_ms": min(timeout_ms, MAX_TIMEOUT_MS[OFFLINE]),
            "start_timeout_ms": 0,
            "run_timeout_ms": 0,
            # the maximum: a writer that was down for days still finds every stored body
            "retention_ms": MAX_RETENTION_MS,
            "content_type": content_type,
            "user": None,
            "callback_events": [],
            "batch_id": batch["id"],
            "batch_line": index,
            "custom_id": request.custom_id,
            "replay_of": None,
            "reply_topic": None,
        }
        described = headers(
            kind="task",
            ce_id=task_id,
            at_ms=now_ms,
            queue=batch["queue"],
            level=OFFLINE,
            owner=batch["owner"],
            deadline_ms=now_ms + task["timeout_ms"],
        )
        return Record(task_id.encode(), TASK.encode(task), described, now_ms)
