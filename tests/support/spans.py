"""Traces kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from core.observability.otel import OtelTracer
from core.observability.tracing import using

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Spans:
    """What was told, by name."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> list[ReadableSpan]:
        """Return the ended spans in their order."""
        return list(self._exporter.get_finished_spans())

    def one(self, name: str) -> ReadableSpan:
        """Return the only span of a name."""
        [found] = [span for span in self.all() if span.name == name]
        return found


@contextmanager
def kept_spans() -> Iterator[Spans]:
    """Trace this process for the length of a block."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with using(OtelTracer(provider)):
        yield Spans(exporter)


def context_of(span: ReadableSpan) -> str:
    """Return the traceparent of what was done within a span."""
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


def parent_of(span: ReadableSpan) -> int:
    """Return the id of the span that one was begun within."""
    assert span.parent is not None
    return span.parent.span_id
