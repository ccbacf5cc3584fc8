"""Claims with a lease of their own: one holder at a time, one outcome, and as many repeats as were asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import event
from schemas.records import Event, Status
from streams.state_machine import tasks
from streams.state_machine.rows import TaskRules
from tests.support.records import finished, task, task_id

ID = task_id()
RULES = TaskRules(max_lost_workers=3)
WORKERS = ("pull/a", "pull/b", "w1")


def fresh() -> Status:
    row = tasks.submitted(None, task(), task_id=ID, offset=0, created_ms=1_000, now_ms=1_000, rules=RULES).row
    assert row is not None
    return row


def claim(worker: str = "pull/a", *, attempt: int = 1, retries: int | None = None, lease_ms: int = 100) -> Event:
    leased: dict[str, Any] = {"lease_ms": lease_ms, "lease_retries": retries} if worker.startswith("pull/") else {}
    return event("claimed", at_ms=1_000, task_id=ID, attempt=attempt, worker=worker, **leased)


def step(row: Status, what: Event, *, now_ms: int = 1_000) -> tasks.Transition:
    return tasks.apply(row, what, now_ms=now_ms, rules=RULES)


def after(row: Status, what: Event, *, now_ms: int = 1_000) -> Status:
    found = step(row, what, now_ms=now_ms)
    assert found.reason is None
    assert found.row is not None
    return found.row


def over(attempt: int) -> Event:
    return event("lease_over", at_ms=1, task_id=ID, attempt=attempt)


def test_a_lease_runs_from_the_first_claim_and_not_from_its_repeat() -> None:
    held = after(fresh(), claim(), now_ms=2_000)
    assert (held["state"], held["worker"], held["lease_until_ms"]) == ("processing", "pull/a", 2_100)
    assert after(held, claim(), now_ms=2_050)["lease_until_ms"] == 2_100


@pytest.mark.parametrize(("retries", "takes"), [(0, 1), (1, 2), (4, 5), (None, RULES.max_lost_workers)])
def test_a_task_goes_out_again_as_often_as_was_asked_for(retries: int | None, takes: int) -> None:
    row = fresh()
    for attempt in range(1, takes + 1):
        assert (row["state"], row["attempt"], row["not_before_ms"]) == ("queued", attempt, None)
        row = after(row, claim(attempt=attempt, retries=retries))
        ended = step(row, over(attempt), now_ms=9_000)
        assert ended.row is not None
        assert not any(isinstance(effect, tasks.WorkEffect) for effect in ended.effects)
        row = ended.row
    assert (row["state"], row["error_code"], row["status_code"], row["lease_until_ms"]) == (
        "failed",
        "timeout",
        408,
        None,
    )


def test_a_task_goes_out_without_end_when_that_was_asked_for() -> None:
    row = fresh()
    for attempt in range(1, 50):
        row = after(after(row, claim(attempt=attempt, retries=-1)), over(attempt), now_ms=9_000)
    assert (row["state"], row["attempt"]) == ("queued", 50)


def test_what_comes_after_the_lease_is_dropped() -> None:
    again = after(after(fresh(), claim()), over(1), now_ms=9_000)
    assert step(again, finished(ID, attempt=1, worker="pull/a")).reason == "stale_finished"
    held = after(again, claim("pull/b", attempt=2))
    assert step(held, finished(ID, attempt=1, worker="pull/a")).reason == "stale_finished"
    assert step(held, finished(ID, attempt=2, worker="pull/a")).reason == "not_lease_holder"


def test_a_dispatcher_and_a_worker_never_both_hold_a_task() -> None:
    ran = after(fresh(), claim("w1"))
    assert step(ran, claim("pull/a")).reason == "already_claimed"
    assert step(ran, event("released", at_ms=1, task_id=ID, attempt=1, worker="pull/a")).reason == "not_lease_holder"
    held = after(fresh(), claim("pull/a"))
    assert step(held, claim("w1")).reason == "already_claimed"
    assert step(held, finished(ID, worker="w1")).reason == "not_lease_holder"
    assert step(held, event("released", at_ms=1, task_id=ID, attempt=1, worker="w1")).reason == "not_lease_holder"


def test_a_released_task_is_queued_at_once_and_counts_as_no_loss() -> None:
    held = after(fresh(), claim(retries=0))
    back = after(held, event("released", at_ms=1, task_id=ID, attempt=1, worker="pull/a"))
    assert (back["state"], back["attempt"], back["not_before_ms"], back["lost_workers"]) == ("queued", 2, None, 0)


ATTEMPTS = st.sampled_from((1, 1, 1, 2, 3))
events = st.one_of(
    st.builds(claim, st.sampled_from(WORKERS), attempt=ATTEMPTS, retries=st.sampled_from((None, -1, 0, 1))),
    st.builds(over, ATTEMPTS),
    st.builds(
        lambda attempt, worker: finished(ID, attempt=attempt, worker=worker),
        ATTEMPTS,
        st.sampled_from(WORKERS),
    ),
    st.builds(
        lambda attempt, worker: event("released", at_ms=1, task_id=ID, attempt=attempt, worker=worker),
        ATTEMPTS,
        st.sampled_from(WORKERS),
    ),
)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(events, st.integers(0, 90)), max_size=25))
def test_whatever_comes_there_is_one_holder_and_at_most_one_outcome(story: list[tuple[Event, int]]) -> None:
    row, now_ms, results = fresh(), 1_000, 0
    for what, passed_ms in story:
        now_ms += passed_ms
        found = step(row, what, now_ms=now_ms)
        results += sum(isinstance(effect, tasks.ResultEffect) for effect in found.effects)
        assert found.row is not None
        before, row = row, found.row
        if before["state"] == row["state"] == "processing":
            assert (row["worker"], row["lease_until_ms"]) == (before["worker"], before["lease_until_ms"])
        if row["state"] == "processing":
            assert (row["lease_until_ms"] is not None) == (row["worker"] or "").startswith("pull/")
        else:
            assert row["lease_until_ms"] is None
        if what["kind"] == "finished" and found.reason is None and before["lease_until_ms"] is not None:
            assert what["worker"] == before["worker"]
    assert results == (row["state"] in ("completed", "failed"))
