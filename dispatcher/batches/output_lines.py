"""Lines of output and error files, as in the Batch API. Pure."""

from __future__ import annotations

from base64 import b64encode
from typing import NamedTuple

import orjson

from core.embedding import json_of, one_line, text_of
from schemas import ids
from schemas.batches import Batch
from schemas.common import Blob
from schemas.records import Result

EXPIRED, CANCELLED = "batch_expired", "batch_cancelled"
MESSAGES = {
    EXPIRED: "This request could not be executed before the completion window expired.",
    CANCELLED: "This request was not executed because the batch was cancelled.",
}
NAMES = {"timeout": "request_timeout", "start_timeout": "request_timeout"}
"""Error codes of tasks that have another name in this API."""
UPSTREAM_ERROR = "upstream_error"
LINE_BYTES = 400
"""Approximate size of a line without its body and custom_id."""


class OutputLine(NamedTuple):
    """One line: the part before the body, the body, and the part after it."""

    head: bytes
    body: bytes
    stored: Blob | None
    """Reference to a body that is too large for a record; `body` is empty then."""
    content_type: str
    tail: bytes
    good: bool
    """Whether it belongs to the output file."""
    custom_id: str | None

    @property
    def size(self) -> int:
        """Return its size in memory, bytes."""
        return len(self.head) + len(self.body) + len(self.tail)


def line_of(result: Result) -> OutputLine:
    """Render a result: a response goes into the output file, an error response or none into the error file."""
    custom_id = result["custom_id"]
    good = result["state"] == "completed"
    if not good and result["error_code"] != UPSTREAM_ERROR:
        code = NAMES.get(result["error_code"] or "", result["error_code"] or "internal_error")
        message = result["error_message"] or ""
        return error_line(custom_id, code, message, task_id=ids.parse(result["id"]))
    head = _head(ids.parse(result["id"]), custom_id)
    opened = b'%b{"status_code":%d,"request_id":"%b","body":' % (head, result["status_code"], result["id"].encode())
    closed, content_type = b'},"error":null}\n', result["content_type"]
    if result["body_ref"] is not None:
        return OutputLine(opened, b"", result["body_ref"], content_type, closed, good, custom_id)
    body, about = body_members(result["body"], content_type)
    return OutputLine(opened, body, None, content_type, about + closed, good, custom_id)


def unsubmitted_line(batch: Batch, custom_id: str | None, *, task_id: ids.TaskId) -> OutputLine:
    """Render a line that never became a task."""
    code = EXPIRED if batch["ending"] == "expired" else CANCELLED
    return error_line(custom_id, code, MESSAGES[code], task_id=task_id)


def error_line(custom_id: str | None, code: str, message: str, *, task_id: ids.TaskId) -> OutputLine:
    """Render a line without a response."""
    tail = b',"error":%b}\n' % orjson.dumps({"code": code, "message": message})
    return OutputLine(_head(task_id, custom_id), b"null", None, "", tail, good=False, custom_id=custom_id)


def body_members(body: bytes | None, content_type: str) -> tuple[bytes, bytes]:
    """Return a response body as JSON on one line, and members for the encoding of one that is not text."""
    if not body:
        return b"null", b""
    if (document := json_of(body, content_type)) is not None:
        return one_line(document), b""
    if (text := text_of(body, content_type)) is not None:
        return orjson.dumps(text), b""
    return b'"%b"' % b64encode(body), about_bytes(content_type)


def about_bytes(content_type: str) -> bytes:
    """Return the members that describe a body in base64."""
    return b',"result_content_type":%b,"result_encoding":"base64"' % orjson.dumps(content_type)


def _head(task_id: ids.TaskId, custom_id: str | None) -> bytes:
    return b'{"id":"%b","custom_id":%b,"response":' % (task_id.batch_request().encode(), orjson.dumps(custom_id))
