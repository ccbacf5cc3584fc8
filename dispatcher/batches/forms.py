"""The lines of output and error files, as the Batch API has them. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

import orjson

from schemas import ids
from schemas.batches import Batch
from schemas.parts import Blob
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
"""About what a line holds beside its body and its custom_id."""
_BREAKS = re.compile(rb"[\r\n]")
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json\b", re.IGNORECASE)


class FormedLine(NamedTuple):
    """One line: what comes before the body, the body, and what comes after it."""

    head: bytes
    body: bytes
    stored: Blob | None
    """Where the body is when it is too large for a record; `body` is empty then."""
    tail: bytes
    good: bool
    """Whether it belongs into the output file."""
    custom_id: str | None

    @property
    def size(self) -> int:
        """Return how many bytes of memory it holds."""
        return len(self.head) + len(self.body) + len(self.tail)


def line_of(result: Result) -> FormedLine:
    """Render a result: an answer goes into the output file, a bad one or none into the error file."""
    custom_id = result["custom_id"]
    good = result["state"] == "completed"
    if not good and result["error_code"] != UPSTREAM_ERROR:
        code = NAMES.get(result["error_code"] or "", result["error_code"] or "internal_error")
        message = result["error_message"] or ""
        return without_answer(custom_id, code, message, task_id=ids.parse(result["id"]))
    head = _head(ids.parse(result["id"]), custom_id)
    opened = b'%b{"status_code":%d,"request_id":"%b","body":' % (head, result["status_code"], result["id"].encode())
    closed = b'},"error":null}\n'
    if result["body_ref"] is not None and _JSON.match(result["content_type"]):
        return FormedLine(opened, b"", result["body_ref"], closed, good, custom_id)
    return FormedLine(opened, json_of(result["body"]), None, closed, good, custom_id)


def never_run(batch: Batch, custom_id: str | None, *, task_id: ids.TaskId) -> FormedLine:
    """Render a line that never became a task."""
    code = EXPIRED if batch["ending"] == "expired" else CANCELLED
    return without_answer(custom_id, code, MESSAGES[code], task_id=task_id)


def without_answer(custom_id: str | None, code: str, message: str, *, task_id: ids.TaskId) -> FormedLine:
    """Render a line to which nothing was answered."""
    tail = b',"error":%b}\n' % orjson.dumps({"code": code, "message": message})
    return FormedLine(_head(task_id, custom_id), b"null", None, tail, good=False, custom_id=custom_id)


def json_of(body: bytes | None) -> bytes:
    """Return an answer as JSON on one line: what is none becomes a string, and nothing becomes null."""
    if not body:
        return b"null"
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return orjson.dumps(body.decode(errors="replace"))
    return flat(body)


def flat(json_text: bytes) -> bytes:
    """Return JSON without line breaks: between its values they are white space, inside of them they are written \\n."""
    return _BREAKS.sub(b" ", json_text) if b"\n" in json_text or b"\r" in json_text else json_text


def _head(task_id: ids.TaskId, custom_id: str | None) -> bytes:
    return b'{"id":"%b","custom_id":%b,"response":' % (task_id.batch_request().encode(), orjson.dumps(custom_id))
