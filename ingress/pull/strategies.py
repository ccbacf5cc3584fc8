"""Which waiting tasks a pull worker gets: what it requests, and the four strategies that select tasks. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import Literal, NamedTuple, get_args

from ingress.pull.queue import Candidate, QueueLevel
from schemas.records import Status

Strategy = Literal["fifo", "round_robin", "active_passive", "sequential"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
MAX_FIFO = 10
MAX_TASKS = 100
"""Tasks of one take; their bodies are in memory together."""


class PickedTask(NamedTuple):
    """A selected task and its queue and level."""

    queue_level: QueueLevel
    task: Candidate


def allowed(strategy: Strategy, size: int) -> int:
    """Return how many tasks a take of this size may have."""
    return min(size, MAX_FIFO if strategy == "fifo" else MAX_TASKS)


def pick(strategy: Strategy, waiting: Mapping[QueueLevel, Sequence[Candidate]], count: int) -> list[PickedTask]:
    """Select at most `count` tasks from the queues, in the order of the request; each queue lists the oldest first.

    fifo selects the oldest of all queues, round_robin one of each in turn, active_passive all of the first queue before
    the next, sequential at most one of each queue.
    """
    queues = [[PickedTask(queue, task) for task in tasks] for queue, tasks in waiting.items()]
    match strategy:
        case "fifo":
            return list(islice(merge(*queues, key=lambda one: one.task), count))
        case "round_robin":
            longest = max(map(len, queues), default=0)
            return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)][:count]
        case "active_passive":
            return [one for queue in queues for one in queue][:count]
        case "sequential":
            return [queue[0] for queue in queues if queue][:count]


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
    """How often a task may be handed out again after its lease expired; None for the limit after a lost worker."""


class LeasedTask(NamedTuple):
    """A task that is leased to a worker."""

    row: Status
    data: bytes | str | None


def lease_ms(order: TakeRequest, row: Status, *, now_ms: int) -> int:
    """Return the lease, milliseconds: as requested, else the run time-out, else until the deadline."""
    return order.lease_ms or row["run_timeout_ms"] or max(1, row["deadline_ms"] - now_ms)
