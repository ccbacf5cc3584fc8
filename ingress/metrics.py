"""What /metrics tells; one registry per application, so that tests may run several in one process."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, ProcessCollector

from schemas.ids import MODE_LETTERS

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The counters of one ingress."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.accepted = Counter(
            "headrace_ingress_accepted", "Tasks acknowledged by Kafka.", ("level", "mode"), registry=self.registry
        )
        self.answers = Counter(
            "headrace_ingress_answers", "Answers sent.", ("route", "mode", "status"), registry=self.registry
        )
        self.put_seconds = Histogram(
            "headrace_ingress_put_seconds",
            "From the read body to Kafka's acknowledgement.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.full = Counter(
            "headrace_ingress_queue_full", "Tasks refused because enough of their queue waited.", ("level",),
            registry=self.registry,
        )  # fmt: skip
        # Looked up once: labels() costs more than the increment.
        self.accepted_by = {
            (level, letter): self.accepted.labels("offline" if level else "online", mode)
            for level in (0, 1)
            for mode, letter in MODE_LETTERS.items()
        }

    def queue_full(self, level: int) -> None:
        """Count a task that was refused because its queue was full."""
        self.full.labels("offline" if level else "online").inc()

    def watch_waiting(self, waiting: Callable[[], int]) -> None:
        """Show how many requests are held."""
        gauge = Gauge("headrace_ingress_waiting", "Blocking and streaming requests held.", registry=self.registry)
        gauge.set_function(waiting)

    def watch_polls(self, held: Callable[[], int]) -> None:
        """Show how many looks wait for the end of their task."""
        gauge = Gauge("headrace_ingress_polls", "Looks held until their task ends.", registry=self.registry)
        gauge.set_function(held)

    def watch_tail(self, tail: str, read_at: Callable[[], float | None]) -> None:
        """Show how long ago a reader last handled a record; the topic may simply be quiet."""
        if not hasattr(self, "_tails"):
            self._tails = Gauge(
                "headrace_ingress_tail_age_seconds",
                "Seconds since a reader last handled a record; NaN before the first.",
                ("tail",),
                registry=self.registry,
            )

        def age() -> float:
            at = read_at()
            return float("nan") if at is None else time.monotonic() - at

        self._tails.labels(tail).set_function(age)
