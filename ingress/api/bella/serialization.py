"""The Bella dialect to the byte: what put accepts, the envelope, the task object. Pure: no Kafka, no clock, no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from core.embedding import described
from core.errors import InvalidRequest
from ingress.http.request import check_members, json_object, not_too_deep
from ingress.pull.claims import WORKER_ERROR
from ingress.read_model.task_snapshot import TaskSnapshot
from schemas.json_text import member
from schemas.records import NO_ORIGIN, Mode, State, Task
from schemas.task_body import for_mode
from schemas.validation import MAX_TIMEOUT_MS, Invalid, check_task

MODES: dict[str, Mode] = {"callback": "callback", "blocking": "blocking", "streaming": "streaming"}
MEMBERS = (
    "queue",
    "endpoint",
    "data",
    "response_mode",
    "level",
    "callback_url",
    "callback_events",
    "timeout",
    "start_timeout",
    "run_timeout",
    "result_retention",
    "trace_id",
)
"""Of a put."""
TIMEOUTS = ("timeout", "start_timeout")
"""Error codes that Bella calls a timeout."""
WORDS: dict[State, str] = {
    "queued": "waiting",
    "processing": "queued",
    "completed": "succeeded",
    "cancelled": "cancelled",
}
JSON = "application/json"
DEFAULT_TIMEOUT_S: dict[Mode, int] = {"callback": 86_400, "blocking": 300, "streaming": 300}


class QueueLimits(NamedTuple):
    """The settings that limit a put."""

    max_timeout_s: int


def parse_put(body: bytes, *, limits: QueueLimits, idempotency_key: str | None = None) -> Task:
    """Read the body of put into a task that has no id, owner and time yet; raises InvalidRequest naming the field."""
    members = json_object(body)
    check_members(members, MEMBERS, of="put")
    mode = _mode(members.get("response_mode"))
    model = _data(members).get("model")
    task: Task = {
        "queue": _text(members, "queue", required=True),
        "level": _level(members.get("level")),
        "endpoint": _text(members, "endpoint", required=True),
        "data": _upstream_body(body, members, mode),
        "id": None,
        "mode": mode,
        "data_ref": None,
        "model": model if isinstance(model, str) else None,
        "owner": None,
        "callback_url": _text(members, "callback_url") or None,
        "trace_id": _text(members, "trace_id") or None,
        "idempotency_key": idempotency_key,
        "created_ms": 0,
        "timeout_ms": 0,
        "start_timeout_ms": _seconds(members, "start_timeout") * 1000,
        "run_timeout_ms": _seconds(members, "run_timeout") * 1000,
        "retention_ms": _seconds(members, "result_retention") * 1000,
        "content_type": JSON,
        "user": None,
        "callback_events": _events(members.get("callback_events")),
        **NO_ORIGIN,
    }
    task["timeout_ms"] = _timeout_ms(members.get("timeout"), task, limits)
    try:
        check_task(task)
    except Invalid as error:
        raise InvalidRequest(error.message, field=error.field) from None
    return task


def _text(members: Mapping[str, Any], name: str, *, required: bool = False) -> str:
    value = members.get(name)
    if value is None:
        if required:
            raise InvalidRequest(f"{name} is required", field=name)
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a string", field=name)
    if required and not value.strip():
        raise InvalidRequest(f"{name} must not be blank", field=name)
    return value


def _mode(value: object) -> Mode:
    if value is None:
        return "callback"
    if isinstance(value, str) and value in MODES:
        return MODES[value]
    raise InvalidRequest("response_mode must be callback, blocking or streaming", field="response_mode")


def _level(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value not in (0, 1):
        raise InvalidRequest("level must be 0 (online) or 1 (offline)", field="level")
    return value


def _data(members: Mapping[str, Any]) -> dict[str, Any]:
    data = members.get("data")
    if data is None:
        raise InvalidRequest("data is required", field="data")
    if not isinstance(data, dict):
        raise InvalidRequest("data must be an object: the body for the upstream endpoint", field="data")
    return data


def _seconds(members: Mapping[str, Any], name: str) -> int:
    """Read an optional clock; 0 when it is not given."""
    value = members.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidRequest(f"{name} must be a whole number of seconds, at least 1", field=name)
    return min(value, 1 << 40)  # far above every limit, and still a long when it is counted in ms


def _timeout_ms(value: object, task: Task, limits: QueueLimits) -> int:
    callback = task["mode"] == "callback"
    longest_s = MAX_TIMEOUT_MS[task["level"]] // 1000 if callback else limits.max_timeout_s
    if value is None:
        return min(DEFAULT_TIMEOUT_S[task["mode"]], longest_s) * 1000
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidRequest("timeout must be a whole number of seconds, at least 1", field="timeout")
    if value > longest_s:
        raise InvalidRequest(
            f"timeout must be at most {longest_s} seconds in response_mode {task['mode']}", field="timeout"
        )
    return value * 1000


def _events(value: object) -> list[str]:
    """Read the events of the callback; none means only the outcome."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InvalidRequest("callback_events must be a list of strings", field="callback_events")
    return list(dict.fromkeys(value))


def _upstream_body(body: bytes, members: dict[str, Any], mode: Mode) -> bytes:
    """Return data as JSON bytes; only `stream` is made to fit the mode, for the mode decides the answer."""
    data = members["data"]
    return not_too_deep(lambda: for_mode(member(body, members, "data"), data, mode), field="data")


def accepted(task_id: str, *, now_ms: int) -> bytes:
    """Render the answer of a callback put."""
    return b'{"code":200,"timestamp":%d,"data":"%b"}' % (now_ms, task_id.encode())


def failure(code: int, message: str, *, now_ms: int, field: str | None = None) -> bytes:
    """Render the error envelope; `field` names the wrong member of the request."""
    envelope: dict[str, Any] = {"code": code, "message": message, "timestamp": now_ms}
    if field is not None:
        envelope["field"] = field
    return orjson.dumps(envelope)


def task_object(reading: TaskSnapshot) -> bytes:
    """Render a task as GET answers it: no envelope, members without a value are left out."""
    members: dict[str, Any] = {
        "task_id": reading.id,
        "endpoint": reading.endpoint,
        "queue": reading.queue,
        "level": reading.level,
        **request_members(reading.data, reading.request_type),
        "status": state(reading),
        "start_time": reading.created_ms,
        "expire_time": reading.deadline_ms,
        "running_time": reading.started_ms if reading.finished_ms is not None else None,
        "completed_time": reading.finished_ms,
        "callback_url": reading.callback_url,
        "response_mode": reading.mode,
        "trace_id": reading.trace_id,
        "result": _result(reading),
    }
    return orjson.dumps({name: value for name, value in members.items() if value is not None})


def state(reading: TaskSnapshot) -> str:
    """Translate a state of the table into Bella's words.

    Bella's `waiting` is our queued; its `queued`, taken by a worker, is our processing.
    A task that a worker has completed is succeeded whatever its status code, as in Bella. A task whose result's
    retention has ended (expired) has the state in which it ended.
    """
    if reading.state in WORDS:
        return WORDS[reading.state]
    if reading.error_code in TIMEOUTS:
        return "timeout"
    if reading.error_code == WORKER_ERROR or (reading.state == "expired" and reading.error_code is None):
        return "succeeded"
    return "cancelled" if reading.state == "expired" and reading.error_code == "cancelled" else "failed"


def _result(reading: TaskSnapshot) -> dict[str, Any] | None:
    """Build the same three members as the callback's body; without a body the error speaks."""
    if reading.finished_ms is None or reading.status_code is None or reading.state == "expired":
        return None
    result: dict[str, Any] = {"status_code": reading.status_code, "request_id": reading.id}
    if reading.body is not None:
        result |= described(reading.body, reading.content_type, name="body", types="result")
    elif reading.error_message is not None:
        result["body"] = {"error": {"message": reading.error_message, "code": reading.error_code}}
    return result


def request_members(data: bytes | str | None, content_type: str) -> dict[str, Any]:
    """Return the member `data`, and the members that describe a body that is no text, such as a form."""
    if data is None:
        return {}
    return described(data.encode() if isinstance(data, str) else data, content_type, name="data")
