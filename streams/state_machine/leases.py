"""Claims with a lease of their own: those of workers that fetch tasks over HTTP and send no heartbeats. Pure."""

from __future__ import annotations

from schemas.records import PULL_WORKER, Event, Status
from streams.state_machine.rows import TaskRules


def lease_of(row: Status, event: Event, *, now_ms: int) -> Status:
    """Note the lease of a claim; one that is told again does not begin anew."""
    if not event["lease_ms"] or row["lease_until_ms"] is not None:
        return row
    return {**row, "lease_until_ms": now_ms + event["lease_ms"], "lease_retries": event["lease_retries"]}


def leased_to_other(row: Status, event: Event) -> bool:
    """Tell whether a worker speaks of a task that it does not hold, where holding is by lease.

    What a dispatcher brings counts even before its claim; beside a lease, or without one that it should have, nothing
    may.
    """
    leased = row["lease_until_ms"] is not None or (event["worker"] or "").startswith(PULL_WORKER)
    return leased and row["worker"] != event["worker"]


def has_retries_left(row: Status, rules: TaskRules) -> bool:
    """Tell whether a task whose lease has just ended, counted already, is handed out once more."""
    retries = row["lease_retries"]
    if retries is None:
        return row["lost_workers"] < rules.max_lost_workers
    return retries < 0 or row["lost_workers"] <= retries
