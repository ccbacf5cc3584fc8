"""What a dispatcher counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from core.observability.metrics import labelled
from schemas.records import Outcome, Work
from schemas.topics import LEVELS

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

RUNNING = Gauge("headrace_calls_running", "Upstream calls under way.", ["level"])
TAKEN = Counter("headrace_work_taken", "Work records taken.", ["level"])
REPEATS = Counter("headrace_work_repeats", "Work records that had been taken before, and were skipped.")
POISON = Counter("headrace_work_poison", "Work records that nobody can work with.")
OUTCOMES = Counter("headrace_outcomes", "Attempts that ended, by error code.", ["level", "code"])
CALL_SECONDS = Histogram("headrace_call_seconds", "Seconds from start to end of an attempt.", buckets=SECONDS)
FIRST_TOKEN_SECONDS = Histogram(
    "headrace_first_token_seconds",
    "From the start of a stream's attempt to its first piece.",
    ["level"],
    buckets=SECONDS,
)
TOKENS = Counter("headrace_tokens", "Tokens that upstreams counted, of every attempt.", ["level", "kind"])
CANCELLED = Counter("headrace_calls_cancelled", "Calls closed because their task was cancelled or timed out.")
RELEASED = Counter("headrace_work_released", "Work given back at a graceful stop or a pause.")
CLAIMED = Counter("headrace_work_claimed", "Claims written.")
COMMIT_FAILURES = Counter("headrace_commit_failures", "Offset commits that did not succeed.")
CHUNKS = Counter("headrace_chunks", "Chunk records written.")
CHUNKS_LOST = Counter("headrace_chunks_lost", "Chunk records that Kafka did not take; readers use the result instead.")
OUTBOX = Gauge("headrace_outbox", "Events that wait for Kafka.")
UPSTREAMS_UP = Gauge("headrace_upstreams_up", "Upstreams that answer.")
LANES = Gauge("headrace_lanes", "Lanes that are read.")
DELIVERIES = Counter("headrace_webhook_deliveries", "Callbacks by what became of them.", ["outcome"])
DELIVERY_SECONDS = Histogram("headrace_webhook_seconds", "Seconds of one callback attempt.", buckets=SECONDS)
WEBHOOK_ATTEMPTS = Counter("headrace_webhook_attempts", "Callback attempts by what they came to.", ["verdict"])
WEBHOOK_FAILURES = Counter("headrace_webhook_failures", "Callback attempts that failed, by reason.", ["reason"])
WEBHOOK_PARKED = Counter("headrace_webhook_parked", "Callbacks put off because their host was closed or crowded.")
WEBHOOK_PENDING = Gauge(
    "headrace_webhook_pending", "Callbacks not delivered yet: in hand, or in the retry partitions of this process."
)
WEBHOOK_OLDEST = Gauge("headrace_webhook_oldest_seconds", "Age of the oldest of headrace_webhook_pending, within 5 s.")
WEBHOOK_CLOSED = Gauge("headrace_webhook_hosts_closed", "Hosts that are not called for a while.")
WEBHOOK_DISABLED = Gauge("headrace_webhook_urls_disabled", "URLs that have answered 410.")
BATCH_LINES_FED = Counter("headrace_batch_lines_fed", "Lines of batches made tasks, repeats included.")
BATCH_LINES_WRITTEN = Counter("headrace_batch_lines_written", "Lines written into pieces of output and error files.")
BATCH_PIECES_DROPPED = Counter("headrace_batch_pieces_dropped", "Pieces that another writer was ahead of.")
BATCHES_OPEN = Gauge("headrace_batches_open", "Batches that have not ended, of the partitions of this process.")


def answered(work: Work, outcome: Outcome) -> None:
    """Count the tokens of an attempt, and how long a stream let its reader wait."""
    level = LEVELS[work["level"]]
    if usage := outcome["usage"]:
        labelled(TOKENS, level, "prompt").inc(usage["prompt_tokens"])
        labelled(TOKENS, level, "completion").inc(usage["completion_tokens"])
    if work["mode"] == "streaming" and (first_ms := outcome["first_token_ms"]) is not None:
        labelled(FIRST_TOKEN_SECONDS, level).observe(max(0, first_ms - outcome["started_ms"]) / 1000)
