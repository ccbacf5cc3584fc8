"""Metrics of the schedulers, without tenant labels."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from core.observability.metrics import labelled
from schemas.records import Status

ENDED = ("completed", "failed", "cancelled")
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 7_200, 43_200)
"""From an immediate response to a night in an offline queue."""

STATES = Counter("headrace_task_states_total", "Tasks that entered a state.", ["level", "state"])
BATCH_STATES = Counter("headrace_batch_states_total", "Batches that entered a state.", ["state"])
DROPPED = Counter("headrace_scheduler_dropped_total", "Inputs without an effect, by reason.", ["level", "reason"])
BATCH_SECONDS = Histogram(
    "headrace_scheduler_batch_seconds",
    "From receiving a batch to its acknowledgement, seconds.",
    ["level"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
BATCH_RECORDS = Histogram(
    "headrace_scheduler_batch_records", "Records per batch.", ["level"], buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500)
)
PARTITIONS = Gauge("headrace_scheduler_partitions", "Partitions owned.", ["level"])
WORKERS = Gauge("headrace_scheduler_workers", "Live workers by heartbeat.", ["level"])
BODIES_DELETED = Counter("headrace_bodies_deleted_total", "Stored bodies deleted after their retention.", ["level"])
QUEUE_SECONDS = Histogram(
    "headrace_task_queue_seconds",
    "From a task's acceptance to its first start, seconds; recorded at its end.",
    ["level"],
    buckets=SECONDS,
)
RUN_SECONDS = Histogram(
    "headrace_task_run_seconds",
    "From a task's first start to its end, seconds; retries and their delays included.",
    ["level"],
    buckets=SECONDS,
)
TASK_SECONDS = Histogram(
    "headrace_task_seconds",
    "From a task's acceptance to its end, seconds; whatever its final state.",
    ["level"],
    buckets=SECONDS,
)


def count_state(level: str, before: Status | None, after: Status) -> None:
    """Count a task that has entered a state; at its end record its durations."""
    if after["duplicate_of"] is not None or (before is not None and before["state"] == after["state"]):
        return
    labelled(STATES, level, after["state"]).inc()
    ended_ms, started_ms = after["finished_ms"], after["started_ms"]
    if after["state"] not in ENDED or ended_ms is None:
        return
    # The times are of up to three clocks, so a difference may be negative.
    labelled(TASK_SECONDS, level).observe(max(0, ended_ms - after["created_ms"]) / 1000)
    if started_ms is not None:
        labelled(QUEUE_SECONDS, level).observe(max(0, started_ms - after["created_ms"]) / 1000)
        labelled(RUN_SECONDS, level).observe(max(0, ended_ms - started_ms) / 1000)
