"""What the schedulers count; seconds and totals, no tenant labels."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

STATES = Counter("headrace_task_states_total", "Tasks that entered a state.", ["level", "state"])
BATCH_STATES = Counter("headrace_batch_states_total", "Batches that entered a state.", ["state"])
NOTES = Counter("headrace_scheduler_dropped_total", "Events that changed nothing, by reason.", ["level", "reason"])
BATCH_SECONDS = Histogram(
    "headrace_scheduler_batch_seconds",
    "From taking a batch to its acknowledgement.",
    ["level"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
BATCH_RECORDS = Histogram(
    "headrace_scheduler_batch_records", "Records per batch.", ["level"], buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500)
)
PARTITIONS = Gauge("headrace_scheduler_partitions", "Partitions owned.", ["level"])
WORKERS = Gauge("headrace_scheduler_workers", "Live workers heard.", ["level"])
BODIES_DELETED = Counter("headrace_bodies_deleted_total", "Stored bodies deleted after their retention.", ["level"])
