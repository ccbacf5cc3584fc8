"""Attributes of the span of a delivery attempt, by the conventions for HTTP clients.

Apart from the worker, as the one place that decides what is exported: the host of the URL, but never its path or query,
which may contain a secret of the receiver.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from core.observability.tracing import Span
from dispatcher.webhooks.http_client import AttemptResult, Disposition
from schemas.records import Delivery

METHOD = "POST"
PORTS = {"http": 80, "https": 443}


def describe_request(span: Span, delivery: Delivery) -> None:
    """Set the attributes of an attempt."""
    if not span.recording:
        return
    host, port = _place(delivery["url"])
    span.note(
        {
            "http.request.method": METHOD,
            "server.address": host,
            "server.port": port,
            "headrace.webhook_id": delivery["id"],
            "headrace.event": delivery["event"],
            "headrace.attempt": delivery["made"] + 1,
        }
    )


def describe_response(span: Span, answer: AttemptResult) -> None:
    """Set the attributes of the response."""
    if not span.recording:
        return
    span.note({"http.response.status_code": answer.status})
    if answer.disposition is not Disposition.DELIVERED:
        span.failed(answer.kind if answer.status is None else str(answer.status))


def _place(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return None, None
