"""Read a request's body within its limit, and the headers that travel with a task."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from core.errors import InvalidRequest, TooLarge
from schemas.headers import TRACEPARENT
from schemas.validation import Invalid, check_key

BODY_SETTING = "ingress.max_body_bytes"
"""What routes whose bodies go to a model, or to a worker, name as the setting of their limit."""
ENDED = "headrace.body_ended"
"""Name in a request's scope."""


async def read_body(request: Request, *, limit: int, setting: str | None = None) -> bytes:
    """Return the body; raises TooLarge as soon as the limit is passed, and ClientDisconnect.

    The refusal names the setting that the limit comes from, or says that it is fixed.
    """
    if declared_length(request) > limit:
        raise _too_large(limit, setting)
    check_encoding(request)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        if not message.get("more_body", False):
            body_ended(request)
            if size + len(part) > limit:
                raise _too_large(limit, setting)
            return part if not parts else b"".join((*parts, part))
        size += len(part)
        if size > limit:
            raise _too_large(limit, setting)
        parts.append(part)


def declared_length(request: Request) -> int:
    """Return the content-length, 0 when there is none."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def check_encoding(request: Request) -> None:
    """Refuse a compressed body; raises InvalidRequest."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidRequest("the body must not be compressed: content-encoding is not supported", field="body")


def body_ended(request: Request) -> None:
    """Note that nothing of the body is left to be read (see ingress/draining.py)."""
    request.scope[ENDED] = True


def traceparent(request: Request) -> bytes | None:
    """Return the caller's trace context when it is valid; a broken one is ignored, as W3C asks."""
    value = request.headers.get("traceparent", "").strip().encode("latin-1")
    return value if TRACEPARENT.fullmatch(value) else None


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key header; raises InvalidRequest when it is no key, and when there are two."""
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
