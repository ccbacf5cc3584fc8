"""What the scheduler notes of a task that has ended."""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY

from schemas.records import Status
from streams import metrics
from streams.state_machine.rows import TaskRules, new_status
from tests.support.records import task, task_id

LANE = "offline"
NAMES = ("headrace_task_queue_seconds", "headrace_task_run_seconds", "headrace_task_seconds")


def row(**changes: Any) -> Status:
    base = new_status(task(), task_id=task_id(), offset=0, created_ms=10_000, rules=TaskRules())
    return {**base, **changes}  # type: ignore[typeddict-item]


def noted(before: Status | None, after: Status) -> list[tuple[float, float]]:
    """Return how many times and how many seconds one change adds to each histogram."""

    def now() -> list[tuple[float, float]]:
        labels = {"level": LANE}
        return [
            tuple(REGISTRY.get_sample_value(f"{name}_{what}", labels) or 0.0 for what in ("count", "sum"))  # type: ignore[misc]
            for name in NAMES
        ]

    then = now()
    metrics.count_state(LANE, before, after)
    return [(round(a - c, 3), round(b - d, 3)) for (a, b), (c, d) in zip(now(), then, strict=True)]


def test_the_end_of_a_task_is_noted_once() -> None:
    running = row(state="processing", started_ms=12_000)
    ended = row(state="completed", started_ms=12_000, finished_ms=15_500)
    assert noted(None, row()) == noted(row(), running) == [(0, 0)] * 3
    assert noted(running, ended) == [(1, 2), (1, 3.5), (1, 5.5)]
    assert noted(ended, ended) == [(0, 0)] * 3
    assert noted(ended, {**ended, "state": "expired"}) == [(0, 0)] * 3


def test_a_task_that_never_began_has_a_whole_time_alone() -> None:
    assert noted(row(), row(state="cancelled", finished_ms=11_000)) == [(0, 0), (0, 0), (1, 1)]


def test_clocks_that_differ_give_no_negative_times() -> None:
    assert noted(None, row(state="failed", started_ms=9_000, finished_ms=9_500)) == [(1, 0), (1, 0.5), (1, 0)]


def test_a_duplicate_is_not_counted_as_a_task() -> None:
    duplicate = row(state="expired", duplicate_of="TASK-x", finished_ms=11_000)
    assert noted(None, duplicate) == [(0, 0)] * 3
