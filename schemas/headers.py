"""Record headers as text: CloudEvents in binary mode, trace context, and fields that are needed without decoding."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

Headers = list[tuple[str, bytes]]

AVRO = b"application/avro"
SOURCE = "headrace"
CALLBACK_EVENTS = "x-callback-events"
"""On state records of tasks with progress webhooks, so that readers can skip all others without decoding."""
TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[\x21-\x7e]{0,200})?"
)
"""W3C traceparent; later versions may append fields."""
BATCH_ID = "x-batch"
"""On results of batch lines, so that readers can skip them without decoding."""
TYPE = b"io.headrace."
CREATED = "x-created-ms"
"""Only on state records of tasks, so that an index by creation time needs no decoding."""


@lru_cache(maxsize=64)
def _moment(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def ce_time(at_ms: int) -> bytes:
    """Render epoch ms as RFC 3339; the second is cached, because the records of a batch share it."""
    return f"{_moment(at_ms // 1000)}.{at_ms % 1000:03d}Z".encode()


def headers(
    *,
    kind: str,
    ce_id: str,
    at_ms: int,
    source: str = SOURCE,
    queue: str | None = None,
    level: int | None = None,
    owner: str | None = None,
    model: str | None = None,
    deadline_ms: int | None = None,
    attempt: int | None = None,
    created_ms: int | None = None,
    traceparent: bytes | None = None,
) -> Headers:
    """Build the headers of one record; `kind` becomes ce_type io.headrace.KIND."""
    out: Headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", ce_id.encode()),
        ("ce_type", TYPE + kind.encode()),
        ("ce_source", source.encode()),
        ("ce_time", ce_time(at_ms)),
        ("content-type", AVRO),
    ]
    if traceparent:
        out.append(("traceparent", traceparent))
    if queue is not None:
        out.append(("x-queue", queue.encode()))
    if level is not None:
        out.append(("x-level", b"1" if level else b"0"))
    if owner is not None:
        out.append(("x-owner", owner.encode()))
    if model is not None:
        out.append(("x-model", model.encode()))
    if deadline_ms is not None:
        out.append(("x-deadline-ms", b"%d" % deadline_ms))
    if attempt is not None:
        out.append(("x-attempt", b"%d" % attempt))
    if created_ms is not None:
        out.append((CREATED, b"%d" % created_ms))
    return out


def find(headers_: Iterable[tuple[str, bytes | None]] | None, name: str) -> bytes | None:
    """Return the last value of a header; the last wins, so that a prefix cannot be spoofed."""
    value = None
    for key, candidate in headers_ or ():
        if key == name:
            value = candidate
    return value


def traceparent_of(headers_: Iterable[tuple[str, bytes | None]] | None) -> bytes | None:
    """Return the trace context of a record; an invalid one is ignored, as W3C requires."""
    value = find(headers_, "traceparent")
    return value if value is not None and TRACEPARENT.fullmatch(value) else None
