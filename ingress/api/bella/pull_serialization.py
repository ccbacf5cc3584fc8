"""Requests and responses of the routes for workers: register, take, complete, metadata, stats. Pure."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import orjson

from core.errors import InvalidRequest
from ingress.api.bella.serialization import request_members
from ingress.http.request import json_object, not_too_deep
from ingress.pull.queue import PullQueue, QueueLevel
from ingress.pull.strategies import STRATEGIES, LeasedTask, Strategy, TakeRequest
from schemas import ids
from schemas.ids import TaskId
from schemas.json_text import member
from schemas.records import Queue, ServedBy
from schemas.validation import MAX_TIMEOUT_MS, QUEUE_NAME, Invalid, check_endpoint, check_queue

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
MAX_QUEUES = 256
MAX_RETRIES = 1_000_000
MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]{1,60}/[\w!#$&^.+-]{1,60}(?:\s*;[ -~]{0,120})?", re.ASCII)
_LEVELLED = re.compile(rf"({QUEUE_NAME.pattern}):([01])")


class Registration(NamedTuple):
    """A queue by name."""

    queue: str
    endpoint: str
    served_by: ServedBy


class Completion(NamedTuple):
    """What a worker brings for a task."""

    status_code: int
    body: bytes
    content_type: str
    attempt: int | None
    """The attempt, as take returned it; None for the leased one."""
    request_id: str | None
    """The task id in the body, if any."""


def parse_register(body: bytes) -> Registration:
    """Read the body of register; raises InvalidRequest."""
    members = json_object(body)
    queue, endpoint = _required(members, "queue"), _required(members, "endpoint")
    served_by = members.get("served_by") or "workers"
    if served_by not in ("dispatcher", "workers"):
        raise InvalidRequest("served_by must be dispatcher or workers", field="served_by")
    try:
        check_queue(queue)
        check_endpoint(endpoint)
    except Invalid as error:
        raise InvalidRequest(error.message, field=error.field) from None
    return Registration(queue, endpoint, "workers" if served_by == "workers" else "dispatcher")


def parse_take(body: bytes) -> TakeRequest:
    """Read the body of take; raises InvalidRequest. Members that Bella itself does not use are ignored."""
    members = json_object(body)
    queues = members.get("queues")
    if not isinstance(queues, list) or not queues:
        raise InvalidRequest("queues must be a list of NAME:LEVEL with at least one entry", field="queues")
    if len(queues) > MAX_QUEUES:
        raise InvalidRequest(f"queues must have at most {MAX_QUEUES} entries", field="queues")
    size = _whole(members, "size", least=1, most=1 << 31)
    timeout = _whole(members, "process_timeout", least=0, most=MAX_TIMEOUT_MS[1] // 1000)
    min_age = _whole(members, "min_age_seconds", least=0, most=MAX_TIMEOUT_MS[1] // 1000)
    return TakeRequest(
        queues=tuple(dict.fromkeys(parse_queue_level(one, field="queues") for one in queues)),
        size=1 if size is None else size,
        strategy=_strategy(members.get("strategy")),
        min_age_ms=(min_age or 0) * 1000,
        lease_ms=(timeout or 0) * 1000,
        retries=_whole(members, "process_max_retries", least=-1, most=MAX_RETRIES),
    )


def parse_queue_level(text: object, *, field: str) -> QueueLevel:
    """Read NAME:LEVEL; raises InvalidRequest."""
    match = _LEVELLED.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidRequest(f"{field} must be NAME:LEVEL, with the level 0 (online) or 1 (offline)", field=field)
    return QueueLevel(match[1], int(match[2]))


def parse_complete(body: bytes) -> Completion:
    """Read the body of complete; raises InvalidRequest.

    A body that is a text is passed on as that text, or as the bytes that it holds in base64.
    """
    members = json_object(body)
    given, content_type = members.get("body"), JSON
    if given is None:
        raise InvalidRequest("body is required: the answer of the task", field="body")
    if members.get("result_encoding") is not None:
        content, content_type = _decoded(members, given), _media_type(members)
    elif isinstance(given, str):
        content, content_type = given.encode(errors="replace"), TEXT
    else:
        content = not_too_deep(lambda: member(body, members, "body"), field="body")
    request_id = members.get("request_id")
    if not isinstance(request_id, str | None):
        raise InvalidRequest("request_id must be a string", field="request_id")
    attempt = _whole(members, "attempt", least=1, most=1 << 30)
    return Completion(_status(members.get("status_code")), content, content_type, attempt, request_id)


def _decoded(members: Mapping[str, Any], given: object) -> bytes:
    """Return the bytes of a body in base64."""
    if members["result_encoding"] != "base64":
        raise InvalidRequest("result_encoding must be base64, or left out", field="result_encoding")
    try:
        return b64decode(given if isinstance(given, str) else "-", validate=True)
    except ValueError:
        raise InvalidRequest("body must be base64, as result_encoding says", field="body") from None


def _media_type(members: Mapping[str, Any]) -> str:
    value = members.get("result_content_type", "application/octet-stream")
    if not isinstance(value, str) or not MEDIA_TYPE.fullmatch(value):
        raise InvalidRequest(
            "result_content_type must be a media type, such as audio/mpeg", field="result_content_type"
        )
    return value


def check_is_for(given: Completion, task_id: TaskId) -> None:
    """Check that an outcome is for the task of the path; raises InvalidRequest."""
    if given.request_id is None:
        return
    with suppress(ids.IdError):
        if ids.parse(given.request_id) == task_id:
            return
    raise InvalidRequest("request_id is not the id of the task that the path names", field="request_id")


def taken_map(taken: Mapping[QueueLevel, list[LeasedTask]]) -> bytes:
    """Render the answer of take: queue:level → its tasks."""
    return orjson.dumps({str(name): [_task(one) for one in tasks] for name, tasks in taken.items()})


def head_row(name: QueueLevel, queue: PullQueue) -> bytes:
    """Render the counters of a queue and level as Bella's head row; a shard is the home partition of a task."""
    wrote, scanned = queue.newest, queue.newest_loaded
    members: dict[str, Any] = {
        "queue": name.queue,
        "level": name.level,
        "last_wrote_sharding_key": _shard(wrote.id) if wrote else None,
        "last_wrote_id": wrote.id if wrote else None,
        "last_scanned_sharding_key": _shard(scanned.id) if scanned else None,
        "last_scanned_id": scanned.id if scanned else None,
        "total_put_cnt": queue.counts.put,
        "total_loaded_cnt": queue.counts.loaded,
        "total_completed_cnt": queue.counts.completed,
    }
    return orjson.dumps({key: value for key, value in members.items() if value is not None})


def described(queue: Queue) -> bytes:
    """Render the answer of metadata; `served_by` is ours."""
    return orjson.dumps({"queue": queue["name"], "endpoint": queue["endpoint"], "served_by": queue["served_by"]})


def _task(one: LeasedTask) -> dict[str, Any]:
    row = one.row
    members: dict[str, Any] = {
        "task_id": row["id"],
        "ak": "",  # Bella returns the producer's key; keys are not stored here, and workers must not see them
        "endpoint": row["endpoint"],
        "queue": row["queue"],
        "level": row["level"],
        **request_members(one.data, row["content_type"]),
        "status": "queued",
        "instance_id": _shard(row["id"]),
        "start_time": row["created_ms"],
        "expire_time": row["deadline_ms"],
        "callback_url": row["callback_url"],
        "response_mode": row["mode"],
        "trace_id": row["trace_id"],
        "attempt": row["attempt"],
    }
    return {name: value for name, value in members.items() if value is not None}


def _shard(task_id: str) -> str:
    return f"{ids.parse(task_id).partition:04d}"


def _required(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest(f"{name} is required, as a string", field=name)
    return value


def _strategy(value: object) -> Strategy:
    for strategy in STRATEGIES:
        if value in (strategy, None):
            return strategy
    raise InvalidRequest(f"strategy must be one of {', '.join(STRATEGIES)}", field="strategy")


def _whole(members: Mapping[str, Any], name: str, *, least: int, most: int) -> int | None:
    value = members.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest(f"{name} must be a whole number from {least} to {most}", field=name)
    return value


def _status(value: object) -> int:
    """Read a status, which Bella itself sends as a text in one place."""
    if value is None:
        return 200
    if isinstance(value, str) and re.fullmatch(r"[0-9]{3}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 599:
        raise InvalidRequest("status_code must be an HTTP status from 200 to 599", field="status_code")
    return value
