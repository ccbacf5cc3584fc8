"""What the span of an attempt to call back tells, by the conventions for HTTP clients.

Never the URL, of which only the host is told: its path and its query may hold a secret of the receiver.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from core.observability.tracing import Span
from dispatcher.webhooks.http_client import AttemptResult, Disposition
from schemas.records import Delivery

METHOD = "POST"
PORTS = {"http": 80, "https": 443}


def posting(span: Span, delivery: Delivery) -> None:
    """Describe an attempt."""
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


def posted(span: Span, answer: AttemptResult) -> None:
    """Say what the receiver answered."""
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
