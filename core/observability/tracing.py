"""Tracing: spans, the W3C trace context that every record carries, and the exporter that the OTEL_ variables select.

Without these variables nothing of OpenTelemetry is imported, and a span is a small object that passes on the context it
was given. A span never contains the content of a request or a response.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self

from core.errors import ConfigError

EXPORTERS = ("otlp", "console", "none")
HTTP = "http/protobuf"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

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


@contextmanager
def tracing(role: str, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Trace within a block as the OTEL_ variables configure; raises ConfigError."""
    with using(_chosen(role, environ)) as chosen:
        try:
            yield
        finally:
            chosen.close()


def exporter(environ: Mapping[str, str]) -> str:
    """Return the configured exporter: otlp, console or none; raises ConfigError."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return "none"
    wanted = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if not wanted:
        return "otlp" if any(environ.get(name) for name in ENDPOINTS) else "none"
    if wanted not in EXPORTERS:
        raise ConfigError(f"OTEL_TRACES_EXPORTER is {wanted!r}; it must be one of {', '.join(EXPORTERS)}")
    return wanted


def _chosen(role: str, environ: Mapping[str, str]) -> Tracer:
    wanted = exporter(environ)
    if wanted == "none":
        return Tracer()
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), HTTP)
    if wanted == "otlp" and protocol != HTTP:
        raise ConfigError(f"the OTLP protocol {protocol!r} is not supported; set OTEL_EXPORTER_OTLP_PROTOCOL={HTTP}")
    try:
        from core.observability.otel import open_tracer  # noqa: PLC0415 - imported only when configured
    except ImportError as error:
        raise ConfigError(
            f"the OTEL_ variables ask for traces, but {error.name} is not installed: install headrace[tracing], "
            "or set OTEL_TRACES_EXPORTER=none"
        ) from error
    return open_tracer(role, console=wanted == "console")
