"""Metrics that have a new name are exposed under their old one as well, and the page lists every pair."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from core.observability.metrics import DEPRECATED, OldName
from dispatcher import metrics as dispatcher_metrics
from ingress.metrics import Metrics

PAGE = Path(__file__).parents[4] / "docs/operations/renamed.md"


def test_an_old_name_shows_the_same_samples() -> None:
    registry = CollectorRegistry()
    counter = Counter("new_things_total", "Things.", ["kind", "level"], registry=registry)
    gauge = Gauge("new_depth", "Depth.", registry=registry)
    seconds = Histogram("new_seconds", "Seconds.", buckets=(1, 2), registry=registry)
    OldName(counter, "old_things", labels={"kind": "sort"}, values={"a": "b"}, registry=registry)
    OldName(gauge, "old_depth", registry=registry)
    OldName(seconds, "old_seconds", registry=registry)
    counter.labels("a", "online").inc(3)
    gauge.set_function(lambda: 7)
    seconds.observe(1.5)
    text = generate_latest(registry).decode()
    assert '\nold_things_total{level="online",sort="b"} 3.0' in text or (
        '\nold_things_total{sort="b",level="online"} 3.0' in text
    )
    assert "\nold_depth 7.0" in text
    assert '\nold_seconds_bucket{le="2.0"} 1.0' in text
    assert "\nold_seconds_count 1.0" in text
    assert f"# HELP old_things_total {DEPRECATED}new_things_total" in text
    assert "# TYPE old_things_total counter" in text
    assert "# TYPE old_seconds histogram" in text


def test_the_page_lists_every_old_name() -> None:
    assert dispatcher_metrics
    ingress = Metrics()
    ingress.watch_waiting(int)
    ingress.watch_polls(int)
    ingress.watch_tail("results", float)
    exposed = set()
    for registry in (REGISTRY, ingress.registry):
        for family in registry.collect():
            if family.documentation.startswith(DEPRECATED):
                suffix = "_total" if family.type == "counter" else ""
                exposed.add((family.name + suffix, family.documentation.removeprefix(DEPRECATED)))
    section = PAGE.read_text().partition("## Metrics")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(headrace_\w+)(?:\{\w+\})?` \| `(headrace_\w+)(?:\{\w+\})?` \|$", section, re.MULTILINE)
    assert exposed == set(rows)
