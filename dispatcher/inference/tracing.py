"""Span attributes: of an attempt by the conventions for messaging, of a call by those for GenAI.

Never the content of requests or responses: more people can read traces than results.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from core.observability.tracing import Span, describe
from core.settings.models import Settings
from schemas import topics
from schemas.records import Outcome, Work

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
"""Operation names of the conventions; other endpoints use their own path."""
PORTS = {"http": 80, "https": 443}


def describe_attempt(span: Span, settings: Settings, work: Work) -> None:
    """Set the attributes of an attempt."""
    if not span.recording:
        return
    topic = settings.topic(topics.work(work["queue"], work["level"]))
    describe(span, "process", topic, key=work["id"], size=len(work["data"]) if work["data"] is not None else None)
    span.note(
        {
            "messaging.consumer.group.name": topic,
            "headrace.queue": work["queue"],
            "headrace.level": topics.LEVELS[work["level"]],
            "headrace.mode": work["mode"],
            "headrace.attempt": work["attempt"],
        }
    )


def end_attempt(span: Span, outcome: Outcome) -> None:
    """Set the status of an attempt."""
    if span.recording and outcome["error_code"] is not None:
        span.failed(outcome["error_code"])


def describe_call(span: Span, work: Work, base: str) -> None:
    """Set the attributes of an upstream call."""
    if not span.recording:
        return
    operation = OPERATIONS.get(work["endpoint"], work["endpoint"].removeprefix("/v1/"))
    url = urlsplit(base)
    span.rename(f"{operation} {work['model']}" if work["model"] else operation)
    span.note(
        {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "openai",  # required by the conventions for every server with its API
            "gen_ai.request.model": work["model"],
            "server.address": url.hostname,
            "server.port": url.port or PORTS.get(url.scheme),
        }
    )


def describe_response(span: Span, outcome: Outcome) -> None:
    """Set the attributes of an upstream's response."""
    if not span.recording:
        return
    usage = outcome["usage"]
    span.note(
        {
            "http.response.status_code": outcome["status_code"],
            "gen_ai.usage.input_tokens": usage["prompt_tokens"] if usage else None,
            "gen_ai.usage.output_tokens": usage["completion_tokens"] if usage else None,
        }
    )
    if outcome["error_code"] is not None:
        span.failed(str(outcome["status_code"]))
