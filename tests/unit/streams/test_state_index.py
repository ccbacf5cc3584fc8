"""Leases and due times in memory, with a clock by hand."""

from __future__ import annotations

from schemas.records import Status
from streams.state_index import HORIZON_MS, StateIndex
from streams.state_machine import tasks
from streams.state_machine.rows import TaskRules
from tests.support.records import task, task_id

LEASE_MS = 10_000


def row(**changes: object) -> Status:
    fresh = tasks.submitted(
        None, task(timeout_ms=60_000), task_id=task_id(), offset=0, created_ms=0, now_ms=0, rules=TaskRules()
    ).row
    assert fresh is not None
    return {**fresh, **changes}  # type: ignore[typeddict-item]


def test_a_silent_worker_is_suspected_once_per_lease() -> None:
    index = StateIndex()
    index.update(0, None, row(state="processing", worker="w"), now_ms=0)
    assert index.expired_workers(now_ms=LEASE_MS, lease_ms=LEASE_MS) == []
    assert index.expired_workers(now_ms=LEASE_MS + 1, lease_ms=LEASE_MS) == [(0, "w")]
    assert index.expired_workers(now_ms=LEASE_MS + 2, lease_ms=LEASE_MS) == []
    assert index.expired_workers(now_ms=2 * LEASE_MS + 2, lease_ms=LEASE_MS) == [(0, "w")]


def test_a_heartbeat_takes_the_suspicion_away() -> None:
    index = StateIndex()
    index.update(0, None, row(state="processing", worker="w"), now_ms=0)
    index.record_heartbeat(0, "w", now_ms=LEASE_MS)
    assert not index.is_expired(0, "w", now_ms=LEASE_MS + 5_000, lease_ms=LEASE_MS)
    assert index.expired_workers(now_ms=LEASE_MS + 5_000, lease_ms=LEASE_MS) == []


def test_a_silent_worker_that_holds_nothing_is_forgotten() -> None:
    index = StateIndex()
    index.record_heartbeat(0, "w", now_ms=0)
    assert index.expired_workers(now_ms=LEASE_MS + 1, lease_ms=LEASE_MS) == []
    assert index.alive(now_ms=0, lease_ms=LEASE_MS) == []


def test_a_task_that_ended_is_no_longer_held() -> None:
    index = StateIndex()
    held = row(state="processing", worker="w")
    index.update(0, None, held, now_ms=0)
    index.update(0, held, {**held, "state": "completed"}, now_ms=1)
    assert index.holders[0, "w"] == set()


def test_only_due_times_within_the_horizon_are_indexed_in_order() -> None:
    index = StateIndex()
    near, nearer = row(deadline_ms=5_000), row(deadline_ms=4_000)
    for one in (near, nearer, row(deadline_ms=HORIZON_MS + 1)):
        index.update(0, None, one, now_ms=0)
    assert index.next_due_ms() == 4_000
    assert [due.task_id for due in index.due(now_ms=HORIZON_MS * 9)] == [nearer["id"], near["id"]]


def test_a_retry_is_scheduled_and_the_deadline_only_once() -> None:
    index = StateIndex()
    fresh = row()
    index.update(0, None, fresh, now_ms=0)
    index.update(0, fresh, {**fresh, "attempt": 2, "not_before_ms": 700}, now_ms=0)
    assert [due.kind for due in index.due(now_ms=60_000)] == ["retry_due", "deadline"]


def test_what_could_not_be_written_comes_back() -> None:
    index = StateIndex()
    index.update(0, None, row(deadline_ms=10), now_ms=0)
    due = index.due(now_ms=10)
    index.reschedule(due, delay_ms=1_000, now_ms=10)
    assert index.due(now_ms=1_009) == []
    assert [one.task_id for one in index.due(now_ms=1_010)] == [one.task_id for one in due]


def test_the_freshest_sign_of_life_of_a_worker_counts() -> None:
    index = StateIndex()
    assert index.record_heartbeat(0, "w", now_ms=1, upstreams_up=0)
    assert index.record_heartbeat(1, "w", now_ms=2, upstreams_up=1)
    assert not index.record_heartbeat(1, "w", now_ms=3, upstreams_up=1)
    assert [worker["upstreams_up"] for worker in index.alive(now_ms=4, lease_ms=LEASE_MS)] == [1]


def test_no_lease_runs_while_kafka_is_away() -> None:
    index = StateIndex()
    index.update(0, None, row(state="processing", worker="w"), now_ms=0)
    back_ms = 60_000
    assert index.expired_workers(now_ms=back_ms + LEASE_MS, lease_ms=LEASE_MS, since_ms=back_ms) == []
    assert index.expired_workers(now_ms=back_ms + LEASE_MS + 1, lease_ms=LEASE_MS, since_ms=back_ms) == [(0, "w")]


def test_a_lease_of_its_own_is_due_at_its_end_and_needs_no_heartbeat() -> None:
    index = StateIndex()
    held = row(state="processing", worker="pull/w", lease_until_ms=3_000)
    index.update(0, row(), held, now_ms=0)
    assert index.expired_workers(now_ms=LEASE_MS * 9, lease_ms=LEASE_MS) == []
    assert [(due.kind, due.task_id) for due in index.due(now_ms=3_000)] == [("lease_over", held["id"])]
