"""What the roles' metrics share."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram

Metric = TypeVar("Metric", Counter, Gauge, Histogram)


@cache
def labelled(metric: Metric, *labels: str) -> Metric:
    """Look up once what a metric counts under labels that have few values: labels() costs more than inc()."""
    return metric.labels(*labels)
