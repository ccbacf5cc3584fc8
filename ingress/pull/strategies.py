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
"""Tasks of one take: their bodies are held in memory together."""


class PickedTask(NamedTuple):
    """A task of a lane."""

    queue_level: QueueLevel
    task: Candidate


def allowed(strategy: Strategy, size: int) -> int:
    """Return how many tasks a take of this size may have."""
    return min(size, MAX_FIFO if strategy == "fifo" else MAX_TASKS)


def pick(strategy: Strategy, waiting: Mapping[QueueLevel, Sequence[Candidate]], count: int) -> list[PickedTask]:
    """Choose at most `count` tasks from the lanes, whose order is that of the request; each lane's are oldest first.

    fifo takes the oldest of all lanes, round_robin one of each in turn, active_passive all of the first lane before the
    next, sequential one of each lane at most.
    """
    lanes = [[PickedTask(lane, task) for task in tasks] for lane, tasks in waiting.items()]
    match strategy:
        case "fifo":
            return list(islice(merge(*lanes, key=lambda one: one.task), count))
        case "round_robin":
            longest = max(map(len, lanes), default=0)
            return [lane[turn] for turn in range(longest) for lane in lanes if turn < len(lane)][:count]
        case "active_passive":
            return [one for lane in lanes for one in lane][:count]
        case "sequential":
            return [lane[0] for lane in lanes if lane][:count]


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
