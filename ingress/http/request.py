"""Read a request: its body within a size limit, JSON objects, and the headers that travel with a task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request

from core.errors import InvalidRequest, TooLarge
from ingress.http.encoding import inflater_of
from schemas.headers import TRACEPARENT
from schemas.json_text import TooDeep, read_json
from schemas.nearest import SHOWN, hint
from schemas.validation import Invalid, check_key

BODY_SETTING = "ingress.max_body_bytes"
"""The setting that limits bodies which go to a model or a worker."""
ENDED = "headrace.body_ended"
"""Name in a request's scope."""


async def read_body(request: Request, *, limit: int, setting: str | None = None) -> bytes:
    """Return the body, decompressed; raises TooLarge as soon as the limit is passed, InvalidRequest, ClientDisconnect.

    The error names the setting of the limit, or says that the limit is fixed.
    """
    if declared_length(request) > limit:
        raise _too_large(limit, setting)
    parts: list[bytes] = []
    size = 0
    async for part in body_pieces(request):
        size += len(part)
        if size > limit:
            raise _too_large(limit, setting)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def body_pieces(request: Request) -> AsyncIterator[bytes]:
    """Yield the body as it arrives, decompressed; raises InvalidRequest and ClientDisconnect.

    The caller limits the size: a small compressed body may be large.
    """
    inflater = inflater_of(request.headers.get("content-encoding", ""))
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if not (more := message.get("more_body", False)):
            body_ended(request)
        data: bytes = message.get("body", b"")
        if inflater is None:
            yield data
            continue
        for piece in inflater.feed(data):
            yield piece
            await asyncio.sleep(0)  # a piece is small, but a body may expand a thousandfold
    if inflater is not None:
        inflater.check_end()


def declared_length(request: Request) -> int:
    """Return the content-length, 0 when there is none."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def body_ended(request: Request) -> None:
    """Record that the body has been read completely (see ingress/http/responses.py)."""
    request.scope[ENDED] = True


def traceparent(request: Request) -> bytes | None:
    """Return the caller's trace context when it is valid; a broken one is ignored, as W3C asks."""
    value = request.headers.get("traceparent", "").strip().encode("latin-1")
    return value if TRACEPARENT.fullmatch(value) else None


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key header; raises InvalidRequest for an invalid key, and for two."""
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    try:
        check_key(values[0].strip(), field="Idempotency-Key")
    except Invalid as error:
        raise InvalidRequest(error.message, field=error.field) from None
    if len(values) > 1:
        raise InvalidRequest("Idempotency-Key was sent twice", field="Idempotency-Key")
    return values[0].strip()


def _too_large(limit: int, setting: str | None) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes ({setting or 'a fixed limit'})", field="body")


T = TypeVar("T")


def json_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object; raises InvalidRequest with the position of a syntax error."""
    try:
        members = read_json(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(_where(body, error), field="body") from None
    if not isinstance(members, dict):
        raise InvalidRequest("the body must be a JSON object", field="body")
    return members


def check_members(members: Mapping[str, Any], known: Collection[str], *, of: str) -> None:
    """Refuse an unknown member, naming the nearest: a typo in callback_url must not lose a callback."""
    for name in members:
        if name not in known:
            message = f"{name[:SHOWN]} is no member of {of}{hint(name, known)}"
            raise InvalidRequest(message, field=name[:SHOWN])


def not_too_deep(write: Callable[[], T], *, field: str) -> T:
    """Call `write` and return its result; raises InvalidRequest naming the field when a value is nested too deeply."""
    try:
        return write()
    except TooDeep:
        raise InvalidRequest(f"{field} is nested too deeply", field=field) from None


def _where(body: bytes, error: orjson.JSONDecodeError) -> str:
    if not body.strip():
        return "the body is empty; it must be a JSON object"
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        line = body.count(b"\n", 0, wrong.start) + 1
        column = wrong.start - body.rfind(b"\n", 0, wrong.start)
        return f"the body is not valid UTF-8 at line {line} column {column} (byte {wrong.start})"
    return f"the body is not valid JSON at line {error.lineno} column {error.colno}: {error.msg.partition(':')[0]}"
