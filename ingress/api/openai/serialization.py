"""Calls of the OpenAI API: what their bodies ask of the queue, and the task they become. Pure: no clock, no HTTP."""

from __future__ import annotations

from typing import Any, NamedTuple

from core.errors import InvalidRequest
from core.settings.models import QueueSettings, Settings
from ingress.http import options as names
from ingress.http.options import Options, renamed
from ingress.http.request import json_object, not_too_deep
from schemas.common import Blob
from schemas.json_text import BOM, changed
from schemas.records import NO_ORIGIN, Mode, Task
from schemas.validation import Invalid, check_task

JSON = "application/json"
HELD_TIMEOUT_S = 3_600
"""Time-out of a blocking call that names none: longer than any wait, so that tasks outlive waits that are too short."""
ASYNC_TIMEOUT_S = 86_400


class Call(NamedTuple):
    """One call, its body as the upstream gets it."""

    endpoint: str
    model: str
    data: bytes | None
    data_ref: Blob | None = None
    """Of a body that is in the object store already."""
    content_type: str = JSON
    streams: bool = False
    asynchronous: bool | None = None
    """As the caller asks; None leaves it to the model's setting."""


def read_call(endpoint: str, body: bytes, *, can_stream: bool) -> Call:
    """Read a JSON body; its bytes are unchanged unless it has `async`. Raises InvalidRequest naming the member."""
    members = json_object(body)
    body = body.removeprefix(BOM)
    streams = _flag(members, "stream")
    if streams and not can_stream:
        raise InvalidRequest(f"stream is not supported by {endpoint}", field="stream")
    asynchronous = _flag(members, "async")
    model = model_of(members.get("model"))
    if "async" in members:
        text = body
        body = not_too_deep(lambda: changed(text, members, {"async": None}), field="body")
    return Call(endpoint, model, body, streams=bool(streams), asynchronous=asynchronous)


def model_of(value: object) -> str:
    """Return the model that a call names; raises InvalidRequest."""
    if value is None:
        raise InvalidRequest("you must provide a model parameter", field="model")
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest("model must be a string that is not blank", field="model")
    return value


def task_of(call: Call, options: Options, settings: Settings, *, idempotency_key: str | None = None) -> Task:
    """Build the task of a call, without id, owner and time; raises InvalidRequest."""
    mode = _mode(call, settings)
    queue = options.queue or settings.ingress.default_queue
    defaults = settings.queues.get(queue, QueueSettings())
    if mode != "callback":
        _refuse_async_options(options)
    level = options.level if options.level is not None else defaults.level if mode == "callback" else 0
    timeout_s = options.timeout_s or defaults.timeout_s or (ASYNC_TIMEOUT_S if mode == "callback" else HELD_TIMEOUT_S)
    task: Task = {
        "queue": queue,
        "level": level,
        "endpoint": call.endpoint,
        "data": call.data,
        "id": None,
        "mode": mode,
        "data_ref": call.data_ref,
        "model": call.model,
        "owner": None,
        "callback_url": options.callback_url,
        "trace_id": None,
        "idempotency_key": idempotency_key,
        "created_ms": 0,
        "timeout_ms": timeout_s * 1000,
        "start_timeout_ms": options.start_timeout_s * 1000,
        "run_timeout_ms": options.run_timeout_s * 1000,
        "retention_ms": options.retention_s * 1000,
        "content_type": call.content_type,
        "user": None,
        "callback_events": [*options.callback_events],
        **NO_ORIGIN,
    }
    try:
        check_task(task)
    except Invalid as error:
        raise renamed(error) from None
    return task


def _mode(call: Call, settings: Settings) -> Mode:
    if call.asynchronous and call.streams:
        raise InvalidRequest("async and stream cannot be used together", field="stream")
    if call.streams:
        return "streaming"  # a client that asks for a stream waits for it, whatever the model's setting is
    if call.asynchronous is None:
        chosen = settings.models.get(call.model)
        return "blocking" if chosen is None or chosen.sync else "callback"
    return "callback" if call.asynchronous else "blocking"


def _refuse_async_options(options: Options) -> None:
    """Refuse options that only async calls can have: ignoring them silently would be noticed too late."""
    for name, given in ((names.LEVEL, options.level), (names.CALLBACK_URL, options.callback_url)):
        if given:
            raise InvalidRequest(f'{name} {given} needs "async": true', field=name)


def _flag(members: dict[str, Any], name: str) -> bool | None:
    value = members.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false", field=name)
    return value
