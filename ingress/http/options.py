"""The X-Headrace-* request headers: what an API that is not ours has no members for. Pure.

Each is refused when it is wrong or sent twice, with its own name as the field: a time-out that is silently ignored is
found out too late.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from starlette.datastructures import Headers

from core.errors import InvalidRequest
from schemas.nearest import SHOWN, hint
from schemas.validation import MAX_RETENTION_MS, MAX_TIMEOUT_MS, Invalid, check_callback, check_queue

QUEUE = "X-Headrace-Queue"
LEVEL = "X-Headrace-Level"
TIMEOUT = "X-Headrace-Timeout"
START_TIMEOUT = "X-Headrace-Start-Timeout"
RUN_TIMEOUT = "X-Headrace-Run-Timeout"
RETENTION = "X-Headrace-Result-Retention"
WAIT = "X-Headrace-Wait"
CALLBACK_URL = "X-Headrace-Callback-Url"
CALLBACK_EVENTS = "X-Headrace-Callback-Events"
DIALECT = "X-Headrace-Dialect"
DESCRIPTIONS = {
    QUEUE: "Queue of the task; `ingress.default_queue` unless given. Registered on first use.",
    LEVEL: '0 online, 1 offline; 1 goes with `"async": true` only. The default of async calls is the queue\'s.',
    TIMEOUT: "Seconds until the latest outcome: 3600 for a held call, 86400 for an async one, or the queue's own.",
    START_TIMEOUT: "Seconds until a worker must have begun; else the task fails with `start_timeout`.",
    RUN_TIMEOUT: "Seconds that one call to the model server may take; a longer one is closed and tried again.",
    RETENTION: "Seconds that the result can be fetched, at most 604800.",
    WAIT: "Seconds to wait for the result, at most `ingress.blocking_timeout_s`; then 504, and the task continues. A "
    "stream has no such bound unless this is given.",
    CALLBACK_URL: "Where the outcome of an async call is posted.",
    CALLBACK_EVENTS: "What is posted there, separated by commas: start, progress, completed, failed, cancelled, "
    "expired; the outcome alone unless given.",
}
OF_FIELD = {
    "queue": QUEUE,
    "level": LEVEL,
    "timeout": TIMEOUT,
    "start_timeout": START_TIMEOUT,
    "run_timeout": RUN_TIMEOUT,
    "result_retention": RETENTION,
    "callback_url": CALLBACK_URL,
    "callback_events": CALLBACK_EVENTS,
}
"""Field of a task → the header that it comes from."""
_PREFIX = b"x-headrace-"
KNOWN = (*DESCRIPTIONS, DIALECT)
_KNOWN = frozenset(name.lower().encode() for name in KNOWN)
_SECONDS = re.compile(r"[0-9]{1,12}")
MAX_S = max(MAX_TIMEOUT_MS) // 1000


class Options(NamedTuple):
    """What the headers ask for; None or 0 where they say nothing. Times in seconds."""

    queue: str | None = None
    level: int | None = None
    timeout_s: int = 0
    start_timeout_s: int = 0
    run_timeout_s: int = 0
    retention_s: int = 0
    wait_s: int = 0
    callback_url: str | None = None
    callback_events: tuple[str, ...] = ()


NONE = Options()


def check_names(headers: Headers) -> None:
    """Refuse a header of ours that is not known, naming the nearest; raises InvalidRequest."""
    for raw, _ in headers.raw:
        if raw.startswith(_PREFIX) and raw not in _KNOWN:
            name = "-".join(part.capitalize() for part in raw.decode("latin-1")[:SHOWN].split("-"))
            raise InvalidRequest(f"{name} is no header of Headrace{hint(name, KNOWN)}", field=name)


def check_none(headers: Headers, *, of: str) -> None:
    """Refuse every header of ours where the members of the body say it all; raises InvalidRequest."""
    for name in KNOWN:
        if name in headers:
            member = next((one for one, header in OF_FIELD.items() if header == name), None)
            instead = f"; use the member {member}" if member is not None else ""
            raise InvalidRequest(f"{name} does not go with {of}{instead}", field=name)


def read_options(headers: Headers, *, hold_s: float) -> Options:
    """Read the headers of a request; raises InvalidRequest naming the header."""
    if not any(name.startswith(_PREFIX) for name, _ in headers.raw):
        return NONE
    options = Options(
        queue=_one(headers, QUEUE),
        level=_level(_one(headers, LEVEL)),
        timeout_s=_seconds(headers, TIMEOUT),
        start_timeout_s=_seconds(headers, START_TIMEOUT),
        run_timeout_s=_seconds(headers, RUN_TIMEOUT),
        retention_s=_seconds(headers, RETENTION, most_s=MAX_RETENTION_MS // 1000),
        wait_s=_seconds(headers, WAIT),
        callback_url=_one(headers, CALLBACK_URL),
        callback_events=_names(headers, CALLBACK_EVENTS),
    )
    if options.wait_s > hold_s:
        raise InvalidRequest(f"{WAIT} must be at most {hold_s:g} seconds (ingress.blocking_timeout_s)", field=WAIT)
    try:
        if options.queue is not None:
            check_queue(options.queue)
        if options.callback_url is not None:
            check_callback(options.callback_url)
    except Invalid as error:
        raise renamed(error) from None
    return options


def renamed(error: Invalid) -> InvalidRequest:
    """Turn a broken rule of the task into an error that names the header, where the field comes from one."""
    name = OF_FIELD.get(error.field, error.field)
    return InvalidRequest(error.message.replace(error.field, name, 1), field=name)


def _one(headers: Headers, name: str) -> str | None:
    values = headers.getlist(name)
    if len(values) > 1:
        raise InvalidRequest(f"{name} was sent twice", field=name)
    return values[0].strip() if values else None


def _names(headers: Headers, name: str) -> tuple[str, ...]:
    """Read names separated by commas, each once."""
    parts = (part.strip() for part in (_one(headers, name) or "").split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def _level(value: str | None) -> int | None:
    if value is None:
        return None
    if value not in ("0", "1"):
        raise InvalidRequest(f"{LEVEL} must be 0 (online) or 1 (offline)", field=LEVEL)
    return int(value)


def _seconds(headers: Headers, name: str, *, most_s: int = MAX_S) -> int:
    value = _one(headers, name)
    if value is None:
        return 0
    if not _SECONDS.fullmatch(value) or not 1 <= int(value) <= most_s:
        raise InvalidRequest(f"{name} must be a whole number of seconds from 1 to {most_s}", field=name)
    return int(value)
