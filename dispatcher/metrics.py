"""Metrics of the dispatcher."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from core.observability.metrics import OldName, labelled
from schemas.records import Outcome, Work
from schemas.topics import LEVELS

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

RUNNING = Gauge("headrace_calls_running", "Upstream calls in progress.", ["level"])
RECEIVED = Counter("headrace_work_received_total", "Work records received.", ["level"])
DUPLICATES = Counter("headrace_work_duplicates_total", "Work records that had been received before, and were skipped.")
INVALID_WORK = Counter("headrace_work_invalid_total", "Work records that cannot be processed.")
OUTCOMES = Counter("headrace_outcomes_total", "Finished attempts, by error code.", ["level", "code"])
CALL_SECONDS = Histogram("headrace_call_seconds", "Duration of an attempt, seconds.", buckets=SECONDS)
FIRST_TOKEN_SECONDS = Histogram(
    "headrace_first_token_seconds",
    "From the start of a streaming attempt to its first chunk, seconds.",
    ["level"],
    buckets=SECONDS,
)
TOKENS = Counter("headrace_tokens_total", "Tokens reported by upstreams, all attempts included.", ["level", "kind"])
CANCELLED = Counter("headrace_calls_cancelled_total", "Calls aborted because their task was cancelled or timed out.")
RETURNED = Counter("headrace_work_returned_total", "Work records returned at a graceful stop or a pause.")
CLAIMED = Counter("headrace_work_claimed_total", "Claims written.")
COMMIT_FAILURES = Counter("headrace_commit_failures_total", "Failed offset commits.")
CHUNKS = Counter("headrace_chunks_total", "Chunk records written.")
CHUNKS_LOST = Counter(
    "headrace_chunks_lost_total", "Chunk records that could not be written; readers use the result instead."
)
OUTBOX = Gauge("headrace_outbox_records", "Event records waiting to be written to Kafka.")
UPSTREAMS_UP = Gauge("headrace_upstreams_up", "Upstreams that respond.")
QUEUE_CONSUMERS = Gauge("headrace_queue_consumers", "Queues and levels that are consumed.")
DELIVERIES = Counter("headrace_webhook_deliveries_total", "Finished webhook deliveries, by outcome.", ["outcome"])
DELIVERY_SECONDS = Histogram("headrace_webhook_seconds", "Duration of one delivery attempt, seconds.", buckets=SECONDS)
WEBHOOK_ATTEMPTS = Counter(
    "headrace_webhook_delivery_attempts_total", "Delivery attempts, by how they were handled.", ["disposition"]
)
WEBHOOK_FAILURES = Counter("headrace_webhook_failures_total", "Failed delivery attempts, by reason.", ["reason"])
WEBHOOK_DEFERRED = Counter(
    "headrace_webhook_deferred_total",
    "Deliveries deferred because their host's circuit is open or its slots are in use.",
)
WEBHOOK_PENDING = Gauge(
    "headrace_webhook_pending", "Pending deliveries: in flight, or in the retry partitions of this process."
)
WEBHOOK_OLDEST = Gauge(
    "headrace_webhook_oldest_pending_age_seconds", "Age of the oldest of headrace_webhook_pending, within 5 s."
)
WEBHOOK_CIRCUITS_OPEN = Gauge(
    "headrace_webhook_circuits_open", "Hosts whose circuit is open: they get no deliveries for now."
)
WEBHOOK_URLS_DISABLED = Gauge("headrace_webhook_urls_disabled", "URLs that have answered 410.")
BATCH_LINES_SUBMITTED = Counter(
    "headrace_batch_lines_submitted_total", "Batch lines submitted as tasks, repeats included."
)
BATCH_LINES_WRITTEN = Counter("headrace_batch_lines_written_total", "Lines written to output and error segments.")
BATCH_SEGMENTS_DISCARDED = Counter(
    "headrace_batch_segments_discarded_total", "Segments discarded because another writer was ahead."
)
BATCHES_OPEN = Gauge("headrace_batches_open", "Unfinished batches in the partitions of this process.")

for _metric, _old in (
    (RECEIVED, "headrace_work_taken"),
    (DUPLICATES, "headrace_work_repeats"),
    (INVALID_WORK, "headrace_work_poison"),
    (RETURNED, "headrace_work_released"),
    (OUTBOX, "headrace_outbox"),
    (QUEUE_CONSUMERS, "headrace_lanes"),
    (WEBHOOK_DEFERRED, "headrace_webhook_parked"),
    (WEBHOOK_CIRCUITS_OPEN, "headrace_webhook_hosts_closed"),
    (WEBHOOK_OLDEST, "headrace_webhook_oldest_seconds"),
    (BATCH_LINES_SUBMITTED, "headrace_batch_lines_fed"),
    (BATCH_SEGMENTS_DISCARDED, "headrace_batch_pieces_dropped"),
):
    OldName(_metric, _old)
OldName(WEBHOOK_ATTEMPTS, "headrace_webhook_attempts", labels={"disposition": "verdict"}, values={"retry": "again"})


def observe_attempt(work: Work, outcome: Outcome) -> None:
    """Count the tokens of an attempt, and observe the time to the first token of a stream."""
    level = LEVELS[work["level"]]
    if usage := outcome["usage"]:
        labelled(TOKENS, level, "prompt").inc(usage["prompt_tokens"])
        labelled(TOKENS, level, "completion").inc(usage["completion_tokens"])
    if work["mode"] == "streaming" and (first_ms := outcome["first_token_ms"]) is not None:
        labelled(FIRST_TOKEN_SECONDS, level).observe(max(0, first_ms - outcome["started_ms"]) / 1000)
