"""Types of all records in memory: plain dictionaries, field by field as in avsc/.

Dictionaries instead of classes, because fastavro reads and writes them without a copy. The .avsc files document the
fields; a test compares the names.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from schemas.common import BatchChange, Blob, Usage

Mode = Literal["callback", "blocking", "streaming", "batch"]
State = Literal["queued", "processing", "completed", "failed", "cancelled", "expired"]
EventKind = Literal[
    "claimed",
    "finished",
    "released",
    "heartbeat",
    "cancel",
    "deadline",
    "retry_due",
    "worker_lost",
    "expire",
    "goodbye",
    "progress",
    "lease_over",
    "batch_created",
    "batch_validated",
    "batch_invalid",
    "batch_part",
    "batch_cancel",
    "batch_due",
    "purge",
]
ServedBy = Literal["dispatcher", "workers"]
DeliveryState = Literal["pending", "delivered", "failed", "disabled"]

STATES: tuple[State, ...] = ("queued", "processing", "completed", "failed", "cancelled", "expired")
PULL_WORKER = "pull/"
"""Prefix of the names of pull workers, which fetch tasks over HTTP, hold them by a lease and send no heartbeats."""
TERMINAL: frozenset[State] = frozenset(("completed", "failed", "cancelled", "expired"))


class TaskOrigin(TypedDict):
    """Where a task comes from and replies to: batch line, replay, reply topic."""

    batch_id: str | None
    batch_line: int
    custom_id: str | None
    replay_of: str | None
    reply_topic: str | None


NO_ORIGIN: TaskOrigin = {"batch_id": None, "batch_line": -1, "custom_id": None, "replay_of": None, "reply_topic": None}
"""For a task that is none of these."""


class Task(TypedDict):
    queue: str
    level: int
    endpoint: str
    data: bytes | str | None
    id: str | None
    mode: Mode
    data_ref: Blob | None
    model: str | None
    owner: str | None
    callback_url: str | None
    trace_id: str | None
    idempotency_key: str | None
    created_ms: int
    timeout_ms: int
    start_timeout_ms: int
    run_timeout_ms: int
    retention_ms: int
    content_type: str
    user: str | None
    callback_events: list[str]
    batch_id: str | None
    batch_line: int
    custom_id: str | None
    replay_of: str | None
    reply_topic: str | None


class Status(TypedDict):
    state: State
    id: str
    queue: str
    level: int
    endpoint: str
    mode: Mode
    owner: str | None
    model: str | None
    callback_url: str | None
    trace_id: str | None
    idempotency_key: str | None
    duplicate_of: str | None
    attempt: int
    lost_workers: int
    worker: str | None
    streamed: bool
    created_ms: int
    started_ms: int | None
    finished_ms: int | None
    not_before_ms: int | None
    deadline_ms: int
    expires_ms: int | None
    source_offset: int
    result_offset: int | None
    status_code: int | None
    error_code: str | None
    error_message: str | None
    digest: str | None
    start_deadline_ms: int | None
    run_timeout_ms: int
    retention_ms: int
    content_type: str
    user: str | None
    callback_events: list[str]
    progress: int
    lease_until_ms: int | None
    updated_ms: int
    lease_retries: int | None
    batch_id: str | None
    batch_line: int
    custom_id: str | None
    replay_of: str | None
    reply_topic: str | None
    request_digest: str | None
    traceparent: str | None


class Work(TypedDict):
    id: str
    queue: str
    level: int
    endpoint: str
    mode: Mode
    attempt: int
    data: bytes | None
    data_ref: Blob | None
    model: str | None
    owner: str | None
    created_ms: int
    deadline_ms: int
    run_timeout_ms: int
    content_type: str


class Outcome(TypedDict):
    status_code: int
    body: bytes | None
    body_ref: Blob | None
    content_type: str
    error_code: str | None
    error_message: str | None
    retriable: bool
    retry_after_ms: int | None
    upstream: str | None
    chunks: int
    usage: Usage | None
    started_ms: int
    first_token_ms: int | None


class Event(TypedDict):
    kind: EventKind
    at_ms: int
    id: str
    attempt: int
    worker: str | None
    reason: str | None
    owner: str | None
    streamed: bool
    outcome: Outcome | None
    data: bytes | None
    data_ref: Blob | None
    running: int
    upstreams_up: int
    progress: int
    lease_ms: int
    lease_retries: int | None
    queue: str | None
    change: BatchChange | None


class Result(TypedDict):
    id: str
    state: State
    queue: str
    level: int
    endpoint: str
    mode: Mode
    owner: str | None
    model: str | None
    callback_url: str | None
    trace_id: str | None
    attempt: int
    worker: str | None
    upstream: str | None
    status_code: int
    body: bytes | None
    body_ref: Blob | None
    content_type: str
    error_code: str | None
    error_message: str | None
    usage: Usage | None
    chunks: int
    created_ms: int
    started_ms: int | None
    finished_ms: int
    callback_events: list[str]
    batch_id: str | None
    batch_line: int
    custom_id: str | None
    replay_of: str | None
    reply_topic: str | None
    request_digest: str | None
    lost_workers: int
    first_token_ms: int | None
    cost: str | None
    currency: str | None


class Chunk(TypedDict):
    id: str
    attempt: int
    worker: str
    seq: int
    frames: list[bytes]
    events: list[str]


class Worker(TypedDict):
    name: str
    seen_ms: int
    running: int
    upstreams_up: int


class Control(TypedDict):
    kind: Literal["cancel", "pulse"]
    at_ms: int
    level: int
    id: str
    reason: str | None
    scheduler: str | None
    partitions: list[int]
    workers: list[Worker]


class Queue(TypedDict):
    name: str
    number: int
    endpoint: str | None
    owner: str | None
    created_ms: int
    width: int
    work_partitions: int
    served_by: ServedBy
    explicit: bool
    paused: bool
    concurrency: int | None
    retention_ms: int | None
    max_waiting: int | None


class Instance(TypedDict):
    name: str
    started_ms: int


class AttemptSummary(TypedDict):
    at_ms: int
    status_code: int | None
    latency_ms: int
    reason: str


class Delivery(TypedDict):
    id: str
    task_id: str
    event: str
    state: DeliveryState
    url: str
    owner: str | None
    level: int
    result_offset: int | None
    payload: bytes | None
    attempts: list[AttemptSummary]
    made: int
    step: int
    created_ms: int
    due_ms: int | None
    manual: bool
    traceparent: str | None
