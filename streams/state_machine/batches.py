"""The state machine of a batch: pure functions from a state record and an event to the next state record.

validating → in_progress → finalizing → completed, with expired, cancelling → cancelled and failed as further states.
The record counts its lines: `ended` has a bit for each line with an outcome, `written` for each line in the output
files. An event that does not apply is ignored and counted under the `reason` of its transition. Diagram:
docs/concepts/batch-life-cycle.md. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

from schemas import bitmap
from schemas.batches import BATCH_ENDED, Batch, BatchState
from schemas.common import BatchChange, BatchPart, Usage
from schemas.ids import batch_line_id, parse_batch
from schemas.records import Event, State, Task
from streams.state_machine.batch_rows import MAX_PARTS, due_ms, errors_of

KINDS = frozenset(("batch_created", "batch_validated", "batch_invalid", "batch_part", "batch_cancel", "batch_due"))
CANCELLED, EXPIRED = "batch_cancelled", "batch_expired"
OPEN = ("validating", "in_progress")
"""States in which a batch can be cancelled or expire."""
MESSAGES = {
    CANCELLED: "This request was cancelled because its batch was cancelled.",
    EXPIRED: "This request could not be executed before the completion window expired.",
}


class BatchTransition(NamedTuple):
    """The result of one event: the next state record, None to remove it.

    `reason` tells why an event was ignored. `line_error` is the error code with which all active lines are ended, in
    slices: the same event, sent again, continues.
    """

    batch: Batch | None
    reason: str | None = None
    line_error: str | None = None


def ignored(batch: Batch | None, reason: str) -> BatchTransition:
    """Return a transition that changes nothing."""
    return BatchTransition(batch, reason)


def apply(batch: Batch | None, event: Event, *, now_ms: int, retention_ms: int) -> BatchTransition:
    """Apply an event about a batch that was created before."""
    if batch is None:
        return ignored(None, "unknown_batch")
    if event["kind"] == "batch_due":
        return _due(batch, now_ms=now_ms, retention_ms=retention_ms)
    handler = HANDLERS.get(event["kind"])
    if handler is None:
        return ignored(batch, "unexpected_batch_event")
    return handler(batch, event, now_ms)


def line_submitted(
    batch: Batch | None, task: Task, *, task_id: str, unknown: bool, has_result: bool
) -> BatchTransition:
    """Apply a line to its batch: the next line of a batch in progress is counted in `fed`, an earlier one is accepted.

    Args:
        unknown: the task has no state record.
        has_result: its result is in the log, but a crash left out its state record.
    """
    if batch is None:
        return ignored(None, "unknown_batch")
    line = task["batch_line"]
    if task["owner"] != batch["owner"] or line < 0 or task_id != line_task_id(batch, line):
        return ignored(batch, "not_owner_line")
    if line < batch["fed"]:
        over = unknown and not has_result and bitmap.has(batch["ended"], line)
        return ignored(batch, "line_already_ended") if over else BatchTransition(batch)
    if batch["state"] != "in_progress":
        return ignored(batch, "stale_line")
    if line > batch["fed"] or line >= batch["total"]:
        return ignored(batch, "line_gap")
    return BatchTransition({**batch, "fed": line + 1})


def line_ended(
    batch: Batch, line: int, state: State, usage: Usage | None, *, now_ms: int, with_batch: bool = False
) -> Batch:
    """Count the end of a line; a repeated call changes nothing.

    A line that ended with its batch (`with_batch`) counts in neither sum. After a crash its result may be known before
    the batch is stopped again; so the sums decide whether a batch is complete, not the bits.
    """
    if bitmap.has(batch["ended"], line):
        return batch
    failed = state == "failed" or (state == "cancelled" and not with_batch and batch["state"] == "in_progress")
    return _start_finalizing(
        {
            **batch,
            "ended": bitmap.with_line(batch["ended"], line),
            "completed": batch["completed"] + (state == "completed"),
            "failed": batch["failed"] + failed,
            "usage": _sum(batch["usage"], usage),
        },
        now_ms=now_ms,
    )


def result_written(batch: Batch, offset: int, *, first: int | None) -> Batch:
    """Set the newest result offset; `first` is where the output begins, None once a segment is written."""
    newest = offset if batch["last_result"] is None else max(batch["last_result"], offset)
    return {**batch, "last_result": newest, "written_to": batch["written_to"] if first is None else first}


def line_task_id(batch: Batch, line: int) -> str:
    """Return the id of a line's task."""
    identity = parse_batch(batch["id"])
    return str(batch_line_id(identity, line, queue_number=batch["queue_number"], stamp_s=batch["stamp_s"]))


def unfinished_lines(batch: Batch) -> list[int]:
    """Return the submitted lines without an outcome."""
    return list(bitmap.missing(batch["ended"], batch["fed"]))


def is_stopping(batch: Batch) -> bool:
    """Return whether a batch was stopped and some of its lines are still active."""
    return batch["ending"] in ("cancelled", "expired") and bitmap.count(batch["ended"]) < batch["fed"]


def _validated(batch: Batch, event: Event, now_ms: int) -> BatchTransition:
    total = event["change"]["total"] if event["change"] is not None else 0
    if batch["state"] == "validating":
        if total < 1:
            return ignored(batch, "invalid_validated")
        return BatchTransition({**batch, "state": "in_progress", "in_progress_ms": now_ms, "total": total})
    # Cancelled or expired before its lines were counted: they still have to appear in the error file.
    if batch["state"] in ("cancelling", "finalizing") and batch["total"] == 0 and total > 0:
        return BatchTransition({**batch, "total": total})
    return ignored(batch, "stale_batch_validated")


def _invalid(batch: Batch, event: Event, now_ms: int) -> BatchTransition:
    if batch["state"] != "validating":
        return ignored(batch, "stale_batch_invalid")
    return BatchTransition({**batch, "state": "failed", "failed_ms": now_ms, "errors": errors_of(event)})


def _cancel(batch: Batch, event: Event, now_ms: int) -> BatchTransition:
    if event["owner"] is not None and event["owner"] != batch["owner"]:
        return ignored(batch, "not_owner_batch_cancel")
    if batch["state"] == "cancelling" and is_stopping(batch):
        return BatchTransition(batch, line_error=CANCELLED)
    if batch["state"] not in OPEN:
        return ignored(batch, "stale_batch_cancel")
    stopped: Batch = {**batch, "state": "cancelling", "cancelling_ms": now_ms, "ending": "cancelled"}
    return BatchTransition(stopped, line_error=CANCELLED)


def _due(batch: Batch, *, now_ms: int, retention_ms: int) -> BatchTransition:
    if batch["ending"] == "expired" and is_stopping(batch):
        return BatchTransition(batch, line_error=EXPIRED)
    at_ms = due_ms(batch, retention_ms=retention_ms)
    if at_ms is None:
        return ignored(batch, "stale_batch_due")
    if now_ms < at_ms:
        return ignored(batch, "premature_batch_due")
    if batch["state"] in BATCH_ENDED:
        return BatchTransition(None)
    return BatchTransition(
        {**batch, "state": "finalizing", "finalizing_ms": now_ms, "ending": "expired"}, line_error=EXPIRED
    )


def _part(batch: Batch, event: Event, now_ms: int) -> BatchTransition:
    """Add a segment of the output files: it must begin where the last one ended, and repeat no line.

    So of two writers, one of which was suspended and still works on the batch, only one is accepted.
    """
    report = event["change"]
    if batch["state"] == "validating" or batch["state"] in BATCH_ENDED:
        return ignored(batch, "stale_batch_part")
    if report is None or not _fits(batch, report):
        return ignored(batch, "invalid_part")
    if len(batch["parts"]) >= MAX_PARTS:
        return ignored(batch, "too_many_parts")
    part, lines = report["part"], report["lines"]
    row: Batch = {**batch, "written": bitmap.union(batch["written"], lines)}
    if part is not None and part["end"] > report["begin"]:
        row["written_to"] = part["end"]
    if part is not None and lines:
        row["parts"] = [*batch["parts"], part]
    if not report["last"]:
        return BatchTransition(row)
    ending = cast("BatchState | None", row["ending"])
    missing = bitmap.count(row["ended"]) < row["fed"] or bitmap.count(row["written"]) < row["total"]
    if row["state"] == "in_progress" or ending is None or missing:
        return ignored(batch, "premature_last_part")
    return BatchTransition(cast("Batch", {**row, "state": ending, f"{ending}_ms": now_ms}))


def _fits(batch: Batch, report: BatchChange) -> bool:
    part, lines, begin = report["part"], report["lines"], report["begin"]
    if begin != (batch["written_to"] or 0):
        return False
    if part is None:
        return report["last"] and not lines
    forward = part["end"] > begin
    if part["end"] < begin or (forward and batch["written_to"] is None) or not (forward or lines or report["last"]):
        return False
    return (
        _counted(part, lines) and bitmap.width(lines) <= batch["total"] and not bitmap.overlap(lines, batch["written"])
    )


def _counted(part: BatchPart, lines: bytes) -> bool:
    return bitmap.count(lines) == part["output_lines"] + part["error_lines"]


def _start_finalizing(batch: Batch, *, now_ms: int) -> Batch:
    """Start to finalize when the last line has ended."""
    if batch["state"] != "in_progress" or batch["completed"] + batch["failed"] < batch["total"]:
        return batch
    return {**batch, "state": "finalizing", "finalizing_ms": now_ms, "ending": "completed"}


def _sum(one: Usage, other: Usage | None) -> Usage:
    if other is None:
        return one
    return {
        "prompt_tokens": one["prompt_tokens"] + other["prompt_tokens"],
        "completion_tokens": one["completion_tokens"] + other["completion_tokens"],
        "total_tokens": one["total_tokens"] + other["total_tokens"],
    }


HANDLERS: Mapping[str, Callable[[Batch, Event, int], BatchTransition]] = {
    "batch_validated": _validated,
    "batch_invalid": _invalid,
    "batch_part": _part,
    "batch_cancel": _cancel,
}
