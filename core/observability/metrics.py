"""What the roles' metrics share: cached label lookups, and metrics that are still exposed under an old name.

Apart, because the metrics modules of three roles import it and it must not import any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import TypeVar

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

Metric = TypeVar("Metric", Counter, Gauge, Histogram)
DEPRECATED = "Deprecated: use "
"""Start of the help text of every old name."""


@cache
def labelled(metric: Metric, *labels: str) -> Metric:
    """Look up once what a metric counts under labels that have few values: labels() costs more than inc()."""
    return metric.labels(*labels)


class OldName(Collector):
    """Expose a metric under its old name as well, for one version: same type, same samples, old label names."""

    def __init__(
        self,
        metric: Counter | Gauge | Histogram,
        old: str,
        *,
        labels: Mapping[str, str] | None = None,
        values: Mapping[str, str] | None = None,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """Register the old name.

        Args:
            metric: the metric under its new name.
            old: its old name, without the suffix _total.
            labels: new label name → old label name, where a label was renamed too.
            values: new label value → old label value, where a value was renamed too.
            registry: where the metric is registered.
        """
        self._metric = metric
        self._old = old
        self._labels = labels or {}
        self._values = values or {}
        registry.register(self)

    def describe(self) -> Iterable[Family]:
        """Return nothing: the old name is not checked for duplicates."""
        return []

    def collect(self) -> Iterator[Family]:
        """Yield the metric's samples under the old name."""
        for family in self._metric.collect():
            suffix = "_total" if family.type == "counter" else ""
            old = Family(self._old, f"{DEPRECATED}{family.name}{suffix}", family.type)
            for sample in family.samples:
                labels = {
                    self._labels.get(name, name): self._values.get(value, value)
                    for name, value in sample.labels.items()
                }
                name = self._old + sample.name.removeprefix(family.name)
                old.add_sample(name, labels, sample.value, sample.timestamp, sample.exemplar)
            yield old
