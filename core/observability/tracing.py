"""Tracing: spans, and the W3C trace context that every record carries.

Unless the process traces (`core.process.tracing`), a span is a small object that passes on the context it was given. A
span never contains the content of a request or a response.
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
    """A no-op span; its children inherit its parent context."""

    __slots__ = ("traceparent",)

    recording = False
    """Whether attributes are recorded."""

    def __init__(self, traceparent: bytes | None) -> None:
        self.traceparent = traceparent
        """The trace context for calls and records within the span."""

    def rename(self, name: str) -> None:
        """Set a name that was not known at the start."""

    def note(self, attributes: Attributes) -> None:
        """Add attributes; those that are None are left out."""

    def failed(self, code: str) -> None:
        """Mark the span as failed; the code must have few different values."""

    def end(self) -> None:
        """End the span. A span that is not ended is not exported."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.failed(kind.__name__)
        self.end()


class Tracer:
    """Creates no-op spans."""

    def span(
        self,
        name: str,  # noqa: ARG002 - used by tracers that record
        kind: Kind,  # noqa: ARG002
        *,
        parent: bytes | None,
        attributes: Attributes | None = None,  # noqa: ARG002
    ) -> Span:
        """Start a span in a trace context, or in a new trace."""
        return Span(parent)

    def close(self) -> None:
        """Export the remaining spans, bounded in time."""


def describe(
    span: Span, operation: str, topic: str, *, key: str, size: int | None = None, partition: int | None = None
) -> None:
    """Name and describe a span that writes or processes a record, by OpenTelemetry's conventions for messaging."""
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
    """Make a tracer the one of this process within a block."""
    global _current  # noqa: PLW0603 - one per process, as OpenTelemetry has it
    before, _current = _current, chosen
    try:
        yield chosen
    finally:
        _current = before
