"""Traces are off unless the OTEL_ variables ask for them, and then leave by OTLP."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from core.errors import ConfigError
from core.observability.otel import OtelTracer
from core.observability.tracing import Tracer, describe, tracer
from core.process import exporter, tracing

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, "none"),
        (ENDPOINT, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, "none"),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, "none"),
        ({"OTEL_SERVICE_NAME": "mine"}, "none"),
    ],
)
def test_what_the_variables_ask_for(environ: dict[str, str], wanted: str) -> None:
    assert exporter(environ) == wanted


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ],
)
def test_impossible_requests_are_reported(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named), tracing("ingress", environ):
        pass


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "core.observability.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"opentelemetry\.sdk\.trace is not installed.*headrace\[tracing\]"):
        tracing("ingress", ENDPOINT).__enter__()


def test_nothing_is_imported_unless_it_is_asked_for() -> None:
    program = (
        "import sys, core.process as t; t.tracing('x', {}).__enter__(); print('core.observability.otel' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_traces_the_context_is_handed_on() -> None:
    for parent in (PARENT, None):
        with tracer().span("send", "producer", parent=parent) as span:
            describe(span, "send", "tasks", key="k")
            assert span.traceparent == parent
    assert type(tracer()) is Tracer


def test_a_span_is_the_parent_of_what_it_writes() -> None:
    told = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(told))
    made = OtelTracer(provider)
    with made.span("send", "producer", parent=PARENT) as first:
        describe(first, "send", "headrace.tasks.online", key="k", partition=3)
    with pytest.raises(KeyError), made.span("process", "consumer", parent=first.traceparent):
        raise KeyError("x")
    unsampled = made.span("send", "producer", parent=PARENT[:-1] + b"0")
    unsampled.end()
    sent, processed = told.get_finished_spans()
    assert sent.name == "send headrace.tasks.online"
    assert sent.parent is not None
    assert sent.parent.span_id == 0x00F067AA0BA902B7
    assert (sent.attributes or {})["messaging.destination.partition.id"] == "3"
    assert processed.parent is not None
    assert processed.parent.span_id == sent.context.span_id
    assert processed.context.trace_id == 0x4BF92F3577B34DA6A3CE929D0E0E4736
    assert (processed.attributes or {})["error.type"] == "KeyError"
    assert (unsampled.traceparent or b"").startswith(PARENT[:36])
    assert (unsampled.traceparent or b"").endswith(b"-00")
    made.close()


class Collector(HTTPServer):
    """Takes what is exported."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Take)
        self.taken: list[tuple[str, ExportTraceServiceRequest]] = []


class Take(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Collector)
        self.server.taken.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("named", "service"), [(None, "headrace-ingress"), ("mine", "mine")])
def test_spans_leave_by_otlp(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, named: str | None, service: str
) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}"}
    if named is not None:
        environ["OTEL_SERVICE_NAME"] = named
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with tracing("ingress", environ), tracer().span("send", "producer", parent=PARENT):
        pass
    [(path, request)] = collector.taken
    assert path == "/v1/traces"
    [resource] = request.resource_spans
    assert {one.key: one.value.string_value for one in resource.resource.attributes}["service.name"] == service
    [span] = resource.scope_spans[0].spans
    assert span.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
