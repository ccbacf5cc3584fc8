"""What a worker asks for when it takes tasks, and what it is given."""

from __future__ import annotations

from typing import NamedTuple

from ingress.pull.queue import QueueLevel
from ingress.pull.strategies import Strategy
from schemas.records import Status


class TakeRequest(NamedTuple):
    """One take."""

    queues: tuple[QueueLevel, ...]
    size: int = 1
    strategy: Strategy = "fifo"
    min_age_ms: int = 0
    """Only tasks that are older."""
    lease_ms: int = 0
    """How long each task may take; 0 for the task's own limit."""
    retries: int | None = None
    """How often a task may be handed out again after its lease; None as often as after any lost worker."""


class LeasedTask(NamedTuple):
    """A task that is in the worker's hands."""

    row: Status
    data: bytes | str | None


def lease_ms(order: TakeRequest, row: Status, *, now_ms: int) -> int:
    """Return how long a task is held: as asked for, else as long as one run of it may take, else until its deadline."""
    return order.lease_ms or row["run_timeout_ms"] or max(1, row["deadline_ms"] - now_ms)
