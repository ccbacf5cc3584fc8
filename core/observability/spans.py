"""Spans and the W3C trace context, which every record carries on.

Unless the process traces (core/observability/tracing.py) a span is a small object that hands on the context it was
given. A span never holds what a request or an answer says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self

Kind = Literal["producer", "consumer", "client"]
Value = str | int | float
Attributes = Mapping[str, Value | None]


class Span:
    """A span that nobody records; what it was called within is what its children are called within."""

    __slots__ = ("traceparent",)

    recording = False
    """Whether it is worth while to gather attributes."""

    def __init__(self, traceparent: bytes | None) -> None:
        self.traceparent = traceparent
        """The context for what is done, or written, within."""

    def rename(self, name: str) -> None:
        """Give it the name that was not known at its begin."""

    def note(self, attributes: Attributes) -> None:
        """Add attributes; those that are None are left out."""

    def failed(self, code: str) -> None:
        """Mark it as failed, with a code of few different values."""

    def end(self) -> None:
        """End it; a span that is never ended is never told of."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.failed(kind.__name__)
        self.end()


class Tracer:
    """Makes spans that nobody records."""

    def span(
        self,
        name: str,  # noqa: ARG002 - this and what follows is for those who record
        kind: Kind,  # noqa: ARG002
        *,
        parent: bytes | None,
        attributes: Attributes | None = None,  # noqa: ARG002
    ) -> Span:
        """Begin a span within a trace context, or a trace of its own."""
        return Span(parent)

    def close(self) -> None:
        """Send what has not been sent, bounded in time."""


def describe(
    span: Span, operation: str, topic: str, *, key: str, size: int | None = None, partition: int | None = None
) -> None:
    """Name and describe a span that writes or works on a record, by the conventions for messaging."""
    if not span.recording:
        return
    span.rename(f"{operation} {topic}")
    span.note(
        {
            "messaging.system": "kafka",
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": None if partition is None else str(partition),
            "messaging.message.id": key,
            "messaging.kafka.message.key": key,
            "messaging.message.body.size": size,
        }
    )


_current = Tracer()


def tracer() -> Tracer:
    """Return the tracer of this process."""
    return _current


@contextmanager
def using(chosen: Tracer) -> Iterator[Tracer]:
    """Make a tracer that of the process for the length of a block."""
    global _current  # noqa: PLW0603 - one per process, as OpenTelemetry has it
    before, _current = _current, chosen
    try:
        yield chosen
    finally:
        _current = before
