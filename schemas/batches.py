"""Records of batches and files, field by field as in avsc/, and the names of their objects."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypedDict, get_args

from schemas.common import BatchError, BatchPart, Blob, Usage

BatchState = Literal[
    "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"
]

BATCH_STATES: tuple[BatchState, ...] = get_args(BatchState)
"""In the order of the schema's enum."""
BATCH_ENDED: frozenset[BatchState] = frozenset(("completed", "failed", "expired", "cancelled"))


class Batch(TypedDict):
    state: BatchState
    id: str
    owner: str
    queue: str
    queue_number: int
    endpoint: str
    input_file_id: str
    input: Blob
    completion_window: str
    metadata: dict[str, str]
    replace: bytes | None
    callback_url: str | None
    output_expires_s: int | None
    traceparent: str | None
    stamp_s: int
    created_ms: int
    expires_ms: int
    in_progress_ms: int | None
    finalizing_ms: int | None
    completed_ms: int | None
    failed_ms: int | None
    expired_ms: int | None
    cancelling_ms: int | None
    cancelled_ms: int | None
    ending: str | None
    errors: list[BatchError]
    total: int
    fed: int
    completed: int
    failed: int
    ended: bytes
    written: bytes
    written_to: int | None
    last_result: int | None
    parts: list[BatchPart]
    usage: Usage
    source_offset: int
    updated_ms: int


class Segment(NamedTuple):
    """One stored object of a batch's output or error file."""

    name: str
    size: int


SEGMENT_PREFIX = "batches/"
"""Prefix of output objects in the object store."""


def segment_name(batch_id: str, part: BatchPart, *, errors: bool) -> str:
    """Return the object name of a segment of the output or error file."""
    return f"{SEGMENT_PREFIX}{batch_id}/{'errors' if errors else 'output'}/{part['end']:012d}-{part['token']}"


def segments_of(batch: Batch, *, errors: bool) -> list[Segment]:
    """Return the stored segments of the output or error file."""
    sizes = ((part, part["error_bytes" if errors else "output_bytes"]) for part in batch["parts"])
    return [Segment(segment_name(batch["id"], part, errors=errors), size) for part, size in sizes if size]


def output_file_id(batch_id: str, *, errors: bool) -> str:
    """Return the id of the output or error file, which is known before the file exists."""
    return f"file-{batch_id.removeprefix('batch_')}-{'errors' if errors else 'output'}"


def ended_ms(batch: Batch) -> int | None:
    """Return when a batch ended, epoch ms; None while it has not."""
    if batch["state"] not in BATCH_ENDED:
        return None
    times = (batch["completed_ms"], batch["failed_ms"], batch["expired_ms"], batch["cancelled_ms"])
    return next((at_ms for at_ms in times if at_ms is not None), batch["updated_ms"])


def output_expires_ms(batch: Batch, *, retention_s: int) -> int | None:
    """Return when the output and error files expire, epoch ms; None while the batch has not ended.

    That is after the time that its creator requested, at the latest with the batch itself.
    """
    end_ms, requested_s = ended_ms(batch), batch["output_expires_s"]
    retention_s = retention_s if requested_s is None else min(requested_s, retention_s)
    return None if end_ms is None else end_ms + retention_s * 1000


def outputs_expired(batch: Batch, *, now_ms: int) -> bool:
    """Return whether the files have expired before the batch itself, after the time that its creator requested."""
    end_ms, requested_s = ended_ms(batch), batch["output_expires_s"]
    return end_ms is not None and requested_s is not None and end_ms + requested_s * 1000 <= now_ms


class BatchProgress(TypedDict):
    """The fields that only the scheduler sets."""

    in_progress_ms: int | None
    finalizing_ms: int | None
    completed_ms: int | None
    failed_ms: int | None
    expired_ms: int | None
    cancelling_ms: int | None
    cancelled_ms: int | None
    ending: str | None
    errors: list[BatchError]
    total: int
    fed: int
    completed: int
    failed: int
    ended: bytes
    written: bytes
    written_to: int | None
    last_result: int | None
    parts: list[BatchPart]
    usage: Usage


def initial_progress() -> BatchProgress:
    """Return these fields for a new batch."""
    return {
        "in_progress_ms": None,
        "finalizing_ms": None,
        "completed_ms": None,
        "failed_ms": None,
        "expired_ms": None,
        "cancelling_ms": None,
        "cancelled_ms": None,
        "ending": None,
        "errors": [],
        "total": 0,
        "fed": 0,
        "completed": 0,
        "failed": 0,
        "ended": b"",
        "written": b"",
        "written_to": None,
        "last_result": None,
        "parts": [],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


class BatchFile(TypedDict):
    id: str
    owner: str
    purpose: str
    filename: str
    blob: Blob
    created_ms: int
    expires_ms: int | None
