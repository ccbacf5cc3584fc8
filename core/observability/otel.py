"""Spans that are recorded and exported by OpenTelemetry's SDK.

Apart, because core/process.py imports it only when the OTEL_ variables ask for traces.

Endpoint, headers, time-outs, sampler, batch sizes and resource attributes are read by the SDK itself from the OTEL_
variables.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.trace import Span as Recorded
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from core.observability.tracing import Attributes, Kind, Span, Tracer

CLOSE_S = 2.0
"""Limit for exporting the last spans: an unreachable collector must not delay the stop."""
UNNAMED = "unknown_service"
"""The SDK's name for a service that no variable names."""
KINDS: Mapping[Kind, SpanKind] = {
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
    "client": SpanKind.CLIENT,
}


class RecordedSpan(Span):
    """A span of OpenTelemetry."""

    __slots__ = ("_span", "recording")

    def __init__(self, span: Recorded) -> None:
        here = span.get_span_context()
        super().__init__(b"00-%032x-%016x-%02x" % (here.trace_id, here.span_id, here.trace_flags))
        self._span = span
        self.recording = span.is_recording()

    def rename(self, name: str) -> None:
        """Set a name that was not known at the start."""
        self._span.update_name(name)

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def failed(self, code: str) -> None:
        """Mark the span as failed."""
        self._span.set_attribute("error.type", code)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        """End the span; idempotent."""
        if self.recording:
            self.recording = False
            self._span.end()


class OtelTracer(Tracer):
    """Creates spans of a provider."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("headrace", version("headrace"))
        self._propagator = TraceContextTextMapPropagator()

    def span(self, name: str, kind: Kind, *, parent: bytes | None, attributes: Attributes | None = None) -> Span:
        """Start a span."""
        context = Context()  # never the thread's context: the parent is in the records
        if parent is not None:
            context = self._propagator.extract({"traceparent": parent.decode("latin-1")}, context)
        span = RecordedSpan(self._tracer.start_span(name, context=context, kind=KINDS[kind]))
        span.note(attributes or {})
        return span

    def close(self) -> None:
        """Export the remaining spans, bounded in time."""
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-close", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def open_tracer(role: str, *, console: bool) -> Tracer:
    """Build the tracer of a role; its service is `headrace-ROLE` unless a variable names another."""
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, UNNAMED)).startswith(UNNAMED):
        resource = resource.merge(Resource({SERVICE_NAME: f"headrace-{role}"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter() if console else OTLPSpanExporter()))
    return OtelTracer(provider)
