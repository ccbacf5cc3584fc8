"""The state machine of a task: pure functions from a state record and an event to the next record and its effects.

queued → processing → completed | failed | cancelled, and later expired. The first terminal state is final; later events
are ignored and counted under the `reason` of their transition. Time is an argument. Diagram:
docs/concepts/task-life-cycle.md. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from schemas.common import Blob
from schemas.partitioning import stable_hash
from schemas.records import PULL_WORKER, TERMINAL, Event, Outcome, Status, Task
from streams.state_machine.rows import TaskRules, early_cancel_status, is_early_cancel, new_status, next_deadline_ms

START_TIMEOUT = "start_timeout"
MAX_PROGRESS = 99
TOMBSTONE_MS = 7 * 86_400_000
"""Retention of an expired task's state record."""


class WorkEffect(NamedTuple):
    """Write a work record for the current attempt."""

    data: bytes | None
    data_ref: Blob | None


class ResultEffect(NamedTuple):
    """Write the result; the outcome is None if no upstream responded."""

    outcome: Outcome | None


class CancelEffect(NamedTuple):
    """Tell every dispatcher to cancel the call."""

    reason: str


class DeadLetterEffect(NamedTuple):
    """Write a dead letter with the task's record."""

    reason: str


Effect = WorkEffect | ResultEffect | CancelEffect | DeadLetterEffect


class Transition(NamedTuple):
    """The result of one event: the next state record, None to remove it, and its effects.

    `reason` tells why an event was ignored.
    """

    row: Status | None
    effects: tuple[Effect, ...] = ()
    reason: str | None = None


def ignored(row: Status | None, reason: str) -> Transition:
    """Return a transition that changes nothing."""
    return Transition(row, (), reason)


def submitted(
    row: Status | None, task: Task, *, task_id: str, offset: int, created_ms: int, now_ms: int, rules: TaskRules
) -> Transition:
    """Accept a new task. A known id changes nothing: its outputs were durable before its state record."""
    before = row
    if row is not None and not is_early_cancel(row):
        return ignored(row, "reread" if row["source_offset"] == offset else "duplicate_id")
    row = new_status(task, task_id=task_id, offset=offset, created_ms=created_ms, rules=rules)
    if (failed := _timed_out(row, now_ms=now_ms)) is not None:
        return failed
    if before is not None and before["owner"] in (None, row["owner"]):
        reason = before["error_message"] or ""
        return _ended(row, "cancelled", "cancelled", reason, 499, now_ms=now_ms)
    data = task["data"]
    return Transition(row, (WorkEffect(data.encode() if isinstance(data, str) else data, task["data_ref"]),))


def apply(row: Status | None, event: Event, *, now_ms: int, rules: TaskRules) -> Transition:
    """Apply an event about one task."""
    if row is None:
        return (
            Transition(early_cancel_status(event, now_ms=now_ms))
            if event["kind"] == "cancel"
            else ignored(None, "unknown_task")
        )
    if event["kind"] == "expire":
        return _expire(row, now_ms=now_ms)
    if row["state"] in TERMINAL:
        return ignored(row, f"stale_{event['kind']}")
    handler = HANDLERS.get(event["kind"])
    if handler is None:
        return ignored(row, f"unexpected_{event['kind']}")
    return handler(row, event, now_ms, rules)


def worker_lost(row: Status, *, worker: str, lost: bool, now_ms: int, rules: TaskRules) -> Transition:
    """Start the next attempt of a task whose worker was lost or stopped, or fail it after too many lost workers."""
    if row["state"] != "processing" or row["worker"] != worker:
        return ignored(row, "not_lease_holder")
    count = row["lost_workers"] + lost
    row = {**row, "lost_workers": count}
    if row["streamed"]:
        message = "the worker was lost in the middle of the stream"
        return _failed(row, "worker_lost", message, 502, now_ms=now_ms)
    if lost and count >= rules.max_lost_workers:
        message = f"{count} workers were lost while they processed this task"
        step = _failed(row, "worker_lost", message, 502, now_ms=now_ms)
        return step._replace(effects=(*step.effects, DeadLetterEffect("worker_lost")))
    return Transition(_requeued(row, not_before_ms=now_ms))


def cancelled_with_batch(row: Status, *, code: str, message: str, now_ms: int) -> Transition:
    """Cancel a line whose batch was cancelled or has expired."""
    if row["state"] in TERMINAL:
        return ignored(row, "stale_withdrawal")
    return _ended(row, "cancelled", code, message, 499, now_ms=now_ms)


def backoff_ms(task_id: str, attempt: int, rules: TaskRules) -> int:
    """Return the delay after `attempt`: exponential, with a jitter of ±25 % that depends on the id alone."""
    wait = min(rules.retry_base_ms * 2 ** (attempt - 1), rules.retry_max_ms)
    return int(wait * (0.75 + stable_hash(f"{task_id}/{attempt}") % 1000 / 2000))


def _requeued(row: Status, *, not_before_ms: int) -> Status:
    leased = row["lease_until_ms"] is not None
    return {
        **row,
        "state": "queued",
        "attempt": row["attempt"] + 1,
        "worker": None,
        "streamed": False,
        "progress": 0,
        # Pull workers find a task by its state record, without a work record.
        "not_before_ms": None if leased else not_before_ms,
        "lease_until_ms": None,
        "lease_retries": None,
    }


def lease_of(row: Status, event: Event, *, now_ms: int) -> Status:
    """Return the state record with the lease of a claim; a repeated claim does not extend it.

    Pull workers, which fetch tasks over HTTP and send no heartbeats, claim tasks with a lease.
    """
    if not event["lease_ms"] or row["lease_until_ms"] is not None:
        return row
    return {**row, "lease_until_ms": now_ms + event["lease_ms"], "lease_retries": event["lease_retries"]}


def leased_to_other(row: Status, event: Event) -> bool:
    """Return whether the event's worker does not hold the task, if it is or should be held by a lease.

    The outcome of a dispatcher counts even before its claim; with a lease, only that of the holder does.
    """
    leased = row["lease_until_ms"] is not None or (event["worker"] or "").startswith(PULL_WORKER)
    return leased and row["worker"] != event["worker"]


def has_retries_left(row: Status, rules: TaskRules) -> bool:
    """Return whether a task is requeued after a lease that has just expired and is counted already."""
    retries = row["lease_retries"]
    if retries is None:
        return row["lost_workers"] < rules.max_lost_workers
    return retries < 0 or row["lost_workers"] <= retries


def _claimed(row: Status, event: Event, now_ms: int, rules: TaskRules) -> Transition:  # noqa: ARG001 - signature of HANDLERS
    if event["attempt"] != row["attempt"] or row["not_before_ms"] is not None:
        return ignored(row, "stale_claimed")
    if row["state"] == "processing" and row["worker"] != event["worker"]:
        return ignored(row, "already_claimed")
    started_ms = row["started_ms"] or event["at_ms"]
    return Transition(
        {
            **lease_of(row, event, now_ms=now_ms),
            "state": "processing",
            "worker": event["worker"],
            "streamed": row["streamed"] or event["streamed"],
            "started_ms": started_ms,
        }
    )


def _progressed(row: Status, event: Event, now_ms: int, rules: TaskRules) -> Transition:  # noqa: ARG001 - signature of HANDLERS
    """Set the progress in percent: it only grows within an attempt, and 100 is set by the outcome alone."""
    if event["attempt"] != row["attempt"] or row["state"] != "processing" or row["worker"] != event["worker"]:
        return ignored(row, "stale_progress")
    percent = min(event["progress"], MAX_PROGRESS)
    if percent <= row["progress"]:
        return ignored(row, "old_progress")
    return Transition({**row, "progress": percent})


def _finished(row: Status, event: Event, now_ms: int, rules: TaskRules) -> Transition:
    outcome = event["outcome"]
    if outcome is None or event["attempt"] != row["attempt"] or row["not_before_ms"] is not None:
        return ignored(row, "stale_finished")
    if leased_to_other(row, event):
        return ignored(row, "not_lease_holder")
    row = {**row, "worker": event["worker"], "started_ms": row["started_ms"] or outcome["started_ms"]}
    if outcome["error_code"] is not None and outcome["retriable"] and outcome["chunks"] == 0 and not row["streamed"]:
        wait_ms = max(backoff_ms(row["id"], row["attempt"], rules), outcome["retry_after_ms"] or 0)
        if row["attempt"] < rules.max_attempts and now_ms + wait_ms < row["deadline_ms"]:
            return Transition(_requeued(row, not_before_ms=now_ms + wait_ms))
    ended: Status = {
        **row,
        "state": "completed" if outcome["error_code"] is None else "failed",
        "progress": 100 if outcome["error_code"] is None else row["progress"],
        "finished_ms": now_ms,
        "lease_until_ms": None,
        "expires_ms": now_ms + row["retention_ms"],
        "status_code": outcome["status_code"],
        "error_code": outcome["error_code"],
        "error_message": outcome["error_message"],
    }
    return Transition(ended, (ResultEffect(outcome),))


def _released(row: Status, event: Event, now_ms: int, rules: TaskRules) -> Transition:  # noqa: ARG001 - signature of HANDLERS
    if event["attempt"] != row["attempt"] or row["not_before_ms"] is not None:
        return ignored(row, "stale_released")
    if leased_to_other(row, event):
        return ignored(row, "not_lease_holder")
    return Transition(_requeued(row, not_before_ms=now_ms))


def _lease_expired(row: Status, event: Event, now_ms: int, rules: TaskRules) -> Transition:
    """Requeue a task whose lease has expired, or fail it after the last retry."""
    if row["lease_until_ms"] is None or event["attempt"] != row["attempt"]:
        return ignored(row, "stale_lease_over")
    if now_ms < row["lease_until_ms"]:
        return ignored(row, "premature_lease_over")
    row = {**row, "lost_workers": row["lost_workers"] + 1}
    if has_retries_left(row, rules):
        return Transition(_requeued(row, not_before_ms=now_ms))
    return _failed(row, "timeout", "the worker did not complete the task before its lease expired", 408, now_ms=now_ms)


def _retry_due(row: Status, event: Event, now_ms: int, rules: TaskRules) -> Transition:  # noqa: ARG001 - signature of HANDLERS
    if row["state"] != "queued" or row["not_before_ms"] is None or event["attempt"] != row["attempt"]:
        return ignored(row, "stale_retry_due")
    return Transition({**row, "not_before_ms": None}, (WorkEffect(event["data"], event["data_ref"]),))


def _cancelled(row: Status, event: Event, now_ms: int, rules: TaskRules) -> Transition:  # noqa: ARG001 - signature of HANDLERS
    if event["owner"] is not None and event["owner"] != row["owner"]:
        return ignored(row, "not_owner_cancel")
    reason = event["reason"] or "cancelled on request"
    return _ended(row, "cancelled", "cancelled", reason, 499, now_ms=now_ms)


def _deadline(row: Status, event: Event, now_ms: int, rules: TaskRules) -> Transition:  # noqa: ARG001 - signature of HANDLERS
    return _timed_out(row, now_ms=now_ms) or ignored(row, "premature_deadline")


def _timed_out(row: Status, *, now_ms: int) -> Transition | None:
    """Fail a task that has passed one of its deadlines."""
    if now_ms < next_deadline_ms(row):
        return None
    if now_ms >= row["deadline_ms"]:
        seconds = (row["deadline_ms"] - row["created_ms"]) / 1000
        return _failed(row, "timeout", f"no outcome within {seconds:g} s", 408, now_ms=now_ms)
    seconds = ((row["start_deadline_ms"] or 0) - row["created_ms"]) / 1000
    return _failed(row, START_TIMEOUT, f"no worker started the task within {seconds:g} s", 408, now_ms=now_ms)


def _failed(row: Status, code: str, message: str, status_code: int, *, now_ms: int) -> Transition:
    return _ended(row, "failed", code, message, status_code, now_ms=now_ms)


def _ended(row: Status, state: str, code: str, message: str, status_code: int, *, now_ms: int) -> Transition:
    """End a task without a response from an upstream.

    The call is cancelled even without a claim: a dispatcher may have received the work record since its last commit.
    """
    ended: Status = {
        **row,
        "state": "cancelled" if state == "cancelled" else "failed",
        "finished_ms": now_ms,
        "lease_until_ms": None,
        "expires_ms": now_ms + row["retention_ms"],
        "not_before_ms": None,
        "status_code": status_code,
        "error_code": code,
        "error_message": message,
    }
    return Transition(ended, (ResultEffect(None), CancelEffect(code)))


def _expire(row: Status, *, now_ms: int) -> Transition:
    if row["expires_ms"] is None or now_ms < row["expires_ms"]:
        return ignored(row, "premature_expire")
    if row["state"] == "expired":
        return Transition(None)
    return Transition({**row, "state": "expired", "result_offset": None, "expires_ms": now_ms + TOMBSTONE_MS})


HANDLERS: Mapping[str, Callable[[Status, Event, int, TaskRules], Transition]] = {
    "claimed": _claimed,
    "progress": _progressed,
    "finished": _finished,
    "released": _released,
    "cancel": _cancelled,
    "deadline": _deadline,
    "retry_due": _retry_due,
    "lease_over": _lease_expired,
}
