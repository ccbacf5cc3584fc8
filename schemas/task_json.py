"""Tasks as JSON objects, for producers without Avro. Pure.

The members are the fields of the task record; time limits may also be given in seconds, under the names of the put API.
Unknown members are rejected: a typo in callback_url must not lose a webhook.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from schemas.json_text import TooDeep, member
from schemas.nearest import SHOWN, hint
from schemas.records import NO_ORIGIN, Mode, Task
from schemas.task_body import json_object, kind_of
from schemas.validation import Invalid

MODES = ("callback", "blocking", "streaming")
TEXTS = ("id", "model", "owner", "callback_url", "trace_id", "idempotency_key", "user", "custom_id", "reply_topic")
CLOCKS = {
    "timeout_ms": "timeout",
    "start_timeout_ms": "start_timeout",
    "run_timeout_ms": "run_timeout",
    "retention_ms": "result_retention",
}
"""Member in ms → member in seconds of the put API."""
RESERVED = ("batch_id", "batch_line", "data_ref", "replay_of")
"""Reserved for Headrace."""
PLAIN = ("queue", "level", "endpoint", "data", "mode", "response_mode", "created_ms", "content_type", "callback_events")
SETTABLE = (*PLAIN, *TEXTS, *CLOCKS, *CLOCKS.values())
KNOWN = frozenset((*SETTABLE, *RESERVED))
LONG = 1 << 50
"""Above every limit, and within a 64-bit long."""
MAX_EVENTS = 16


def read_json_task(value: bytes, *, level: int) -> Task:
    """Parse a task; raises Invalid naming the member. The default level is that of the topic."""
    return json_task(value, json_object(value, field="value"), level=level)


def json_task(text: bytes, members: Mapping[str, Any], *, level: int) -> Task:
    """Build a task from its members, decoded from `text`; raises Invalid."""
    for name in members:
        if name not in KNOWN:
            raise Invalid(name[:SHOWN], f"{name[:SHOWN]} is not a member of a task{hint(name, SETTABLE)}")
    for name in RESERVED:
        if members.get(name) is not None:
            raise Invalid(name, f"{name} is reserved for Headrace")
    texts = {name: _text(members, name) for name in TEXTS}
    task: dict[str, Any] = {
        **NO_ORIGIN,
        "queue": _text(members, "queue", required=True),
        "level": _whole(members, "level", most=1, default=level),
        "endpoint": _text(members, "endpoint", required=True),
        "data": _data(text, members),
        "mode": _mode(members),
        "data_ref": None,
        "created_ms": _whole(members, "created_ms", most=LONG),
        "content_type": _text(members, "content_type") or "application/json",
        "callback_events": _events(members.get("callback_events")),
        **texts,
        **{name: _clock(members, name, seconds) for name, seconds in CLOCKS.items()},
    }
    return cast("Task", task)


def _text(members: Mapping[str, Any], name: str, *, required: bool = False) -> str | None:
    value = members.get(name)
    if value is None and required:
        raise Invalid(name, f"{name} is required")
    if value is not None and not isinstance(value, str):
        raise Invalid(name, f"{name} must be a string, not {kind_of(value)}")
    return value or None if not required else value


def _whole(members: Mapping[str, Any], name: str, *, most: int, default: int = 0) -> int:
    value = members.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise Invalid(name, f"{name} must be an integer from 0 to {most}")
    return value


def _clock(members: Mapping[str, Any], name: str, seconds: str) -> int:
    """Return a time limit in ms, given in ms or in seconds; 0 if neither is given."""
    if members.get(seconds) is None:
        return _whole(members, name, most=LONG)
    if members.get(name) is not None:
        raise Invalid(seconds, f"{seconds} and {name} are the same limit; use one of them")
    return _whole(members, seconds, most=LONG // 1000) * 1000


def _mode(members: Mapping[str, Any]) -> Mode:
    """Return the mode; the default is callback, because no client waits for a direct task."""
    named = [name for name in ("mode", "response_mode") if members.get(name) is not None]
    if len(named) == 2:
        raise Invalid("response_mode", "response_mode and mode are the same; use one of them")
    value = members[named[0]] if named else "callback"
    if value not in MODES:
        raise Invalid(named[0], f"{named[0]} must be one of {', '.join(MODES)}")
    return cast("Mode", value)


def _data(text: bytes, members: Mapping[str, Any]) -> bytes:
    data = members.get("data")
    if data is None:
        raise Invalid("data", "data is required")
    if isinstance(data, str):
        return data.encode()
    if not isinstance(data, dict):
        raise Invalid("data", f"data must be an object or a string, not {kind_of(data)}")
    try:
        return member(text, members, "data")
    except TooDeep:
        raise Invalid("data", "data is nested too deeply") from None


def _events(value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value) or len(value) > MAX_EVENTS:
        raise Invalid("callback_events", "callback_events must be a short list of strings")
    return list(dict.fromkeys(value))
