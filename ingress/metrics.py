"""Prometheus metrics of the ingress; one registry per application, so that tests can run several in one process."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, ProcessCollector

from core.observability.metrics import OldName
from schemas.ids import MODE_CODES

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one ingress."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.accepted = Counter(
            "headrace_ingress_accepted_total", "Tasks acknowledged by Kafka.", ("level", "mode"), registry=self.registry
        )
        self.answers = Counter(
            "headrace_ingress_responses_total", "Responses sent.", ("route", "mode", "status"), registry=self.registry
        )
        self.put_seconds = Histogram(
            "headrace_ingress_submit_seconds",
            "From the received body to Kafka's acknowledgement, seconds.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.full = Counter(
            "headrace_ingress_queue_full_total",
            "Tasks refused because their queue was full.",
            ("level",),
            registry=self.registry,
        )
        OldName(self.answers, "headrace_ingress_answers", registry=self.registry)
        OldName(self.put_seconds, "headrace_ingress_put_seconds", registry=self.registry)
        # Looked up once: labels() costs more than the increment.
        self.accepted_by = {
            (level, code): self.accepted.labels("offline" if level else "online", mode)
            for level in (0, 1)
            for mode, code in MODE_CODES.items()
        }

    def queue_full(self, level: int) -> None:
        """Count a task that was refused because its queue was full."""
        self.full.labels("offline" if level else "online").inc()

    def watch_waiting(self, waiting: Callable[[], int]) -> None:
        """Expose the number of open blocking and streaming requests."""
        gauge = Gauge(
            "headrace_ingress_blocking_requests", "Open blocking and streaming requests.", registry=self.registry
        )
        OldName(gauge, "headrace_ingress_waiting", registry=self.registry)
        gauge.set_function(waiting)

    def watch_polls(self, held: Callable[[], int]) -> None:
        """Expose the number of open long polls."""
        gauge = Gauge("headrace_ingress_long_polls", "Open long polls.", registry=self.registry)
        OldName(gauge, "headrace_ingress_polls", registry=self.registry)
        gauge.set_function(held)

    def watch_tail(self, tail: str, read_at: Callable[[], float | None]) -> None:
        """Expose the seconds since a follower handled a record; the topic may simply have no traffic."""
        if not hasattr(self, "_tails"):
            self._tails = Gauge(
                "headrace_ingress_follower_idle_seconds",
                "Seconds since the last record of a followed topic; NaN before the first.",
                ("topic",),
                registry=self.registry,
            )
            old = "headrace_ingress_tail_age_seconds"
            OldName(self._tails, old, labels={"topic": "tail"}, registry=self.registry)

        def age() -> float:
            at = read_at()
            return float("nan") if at is None else time.monotonic() - at

        self._tails.labels(tail).set_function(age)
