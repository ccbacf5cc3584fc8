"""Whether and where a process traces: what the standard OTEL_ variables ask for.

Without them nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from core.errors import ConfigError
from core.observability.spans import Tracer, using

EXPORTERS = ("otlp", "console", "none")
HTTP = "http/protobuf"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@contextmanager
def tracing(role: str, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Trace for the length of a block as the OTEL_ variables ask; raises ConfigError."""
    with using(_chosen(role, environ)) as chosen:
        try:
            yield
        finally:
            chosen.close()


def exporter(environ: Mapping[str, str]) -> str:
    """Return where the variables want traces to go: otlp, console or none; raises ConfigError."""
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
        from core.observability.otel import open_tracer  # noqa: PLC0415 - imported only when it is asked for
    except ImportError as error:
        raise ConfigError(
            f"the OTEL_ variables ask for traces, but {error.name} is not installed: install headrace[tracing], "
            "or set OTEL_TRACES_EXPORTER=none"
        ) from error
    return open_tracer(role, console=wanted == "console")
