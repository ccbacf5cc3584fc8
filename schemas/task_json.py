"""A task as a JSON object: for producers that have no Avro at hand. Pure.

Its members are the fields of the task record; clocks may be given in seconds as well, under the names that put has for
them. A member that is not known is refused: a slip in callback_url must not lose a callback.
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
"""Member in ms → the same in seconds, as put has it."""
RESERVED = ("batch_id", "batch_line", "data_ref", "replay_of")
"""What Headrace alone may say of a task."""
PLAIN = ("queue", "level", "endpoint", "data", "mode", "response_mode", "created_ms", "content_type", "callback_events")
SETTABLE = (*PLAIN, *TEXTS, *CLOCKS, *CLOCKS.values())
KNOWN = frozenset((*SETTABLE, *RESERVED))
LONG = 1 << 50
"""Above every limit, and still a long."""
MAX_EVENTS = 16


def read_json_task(value: bytes, *, level: int) -> Task:
    """Read a task; raises Invalid naming the member. Without a level it has that of its topic."""
    return json_task(value, json_object(value, field="value"), level=level)


def json_task(text: bytes, members: Mapping[str, Any], *, level: int) -> Task:
    """Make a task of its members, which were read from `text`; raises Invalid."""
    for name in members:
        if name not in KNOWN:
            raise Invalid(name[:SHOWN], f"{name[:SHOWN]} is no member of a task{hint(name, SETTABLE)}")
    for name in RESERVED:
        if members.get(name) is not None:
            raise Invalid(name, f"{name} is set by Headrace alone")
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
        raise Invalid(name, f"{name} must be a whole number from 0 to {most}")
    return value


def _clock(members: Mapping[str, Any], name: str, seconds: str) -> int:
    """Read a clock in ms, or under its other name in seconds; 0 when neither is given."""
    if members.get(seconds) is None:
        return _whole(members, name, most=LONG)
    if members.get(name) is not None:
        raise Invalid(seconds, f"{seconds} and {name} are the same clock; give one of them")
    return _whole(members, seconds, most=LONG // 1000) * 1000


def _mode(members: Mapping[str, Any]) -> Mode:
    """Read how the answer is delivered; nobody waits at this door, so it is a callback unless said otherwise."""
    named = [name for name in ("mode", "response_mode") if members.get(name) is not None]
    if len(named) == 2:
        raise Invalid("response_mode", "response_mode and mode are the same; give one of them")
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
        raise Invalid("data", "data cannot be written as JSON: it is nested too deeply") from None


def _events(value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value) or len(value) > MAX_EVENTS:
        raise Invalid("callback_events", "callback_events must be a short list of strings")
    return list(dict.fromkeys(value))
