"""The state machine alone: every legal move, every drop, and what no sequence of events may ever do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import STATUS
from schemas.events import event
from schemas.records import TERMINAL, Event, Status
from streams.state_machine import tasks
from streams.state_machine.rows import TaskRules, new_status
from streams.state_machine.tasks import CancelEffect, DeadLetterEffect, ResultEffect, Transition, WorkEffect
from tests.support.records import claimed, failure, finished, outcome, task, task_id

RULES = TaskRules(max_attempts=3, max_lost_workers=3)
ID = task_id()


def submit(**changes: Any) -> Transition:
    return tasks.submitted(None, task(**changes), task_id=ID, offset=5, created_ms=1_000, now_ms=1_500, rules=RULES)


def queued(**changes: Any) -> Status:
    row = submit().row
    assert row is not None
    return {**row, **changes}  # type: ignore[typeddict-item]


def apply(row: Status | None, what: Event, *, now_ms: int = 4_000) -> Transition:
    return tasks.apply(row, what, now_ms=now_ms, rules=RULES)


def test_a_new_task_is_queued_with_its_first_attempt() -> None:
    step = submit()
    assert step.row is not None
    assert step.row["state"] == "queued"
    assert step.row["attempt"] == 1
    assert step.row["deadline_ms"] == 1_000 + 86_400_000
    assert step.effects == (WorkEffect(b'{"model":"m","messages":[]}', None),)
    STATUS.encode(step.row)


def test_a_task_read_again_changes_nothing() -> None:
    row = queued()
    for offset, note in ((5, "reread"), (6, "duplicate_id")):
        step = tasks.submitted(row, task(), task_id=ID, offset=offset, created_ms=1, now_ms=2, rules=RULES)
        assert step == Transition(row, (), note)


def test_a_task_that_comes_too_late_fails_without_work() -> None:
    step = submit(timeout_ms=100)
    assert step.row is not None
    assert (step.row["state"], step.row["error_code"], step.row["status_code"]) == ("failed", "timeout", 408)
    assert not any(isinstance(effect, WorkEffect) for effect in step.effects)


def test_text_data_becomes_bytes() -> None:
    assert submit(data='{"a":1}').effects == (WorkEffect(b'{"a":1}', None),)


def test_claim_then_finish() -> None:
    step = apply(queued(), claimed(ID))
    assert step.row is not None
    assert (step.row["state"], step.row["worker"], step.row["started_ms"]) == ("processing", "w1", 2_500)
    step = apply(step.row, finished(ID))
    assert step.row is not None
    assert (step.row["state"], step.row["finished_ms"], step.row["expires_ms"]) == ("completed", 4_000, 86_404_000)
    assert step.effects == (ResultEffect(outcome()),)


def test_a_short_call_finishes_without_a_claim() -> None:
    step = apply(queued(), finished(ID))
    assert step.row is not None
    assert (step.row["state"], step.row["started_ms"]) == ("completed", 2_000)


def test_an_upstream_error_that_is_final_keeps_its_status() -> None:
    step = apply(queued(), finished(ID, result=failure(status_code=400, retriable=False)))
    assert step.row is not None
    assert (step.row["state"], step.row["status_code"]) == ("failed", 400)


def test_a_retriable_failure_waits_and_is_tried_again() -> None:
    step = apply(queued(), finished(ID, result=failure()))
    assert step.row is not None
    assert (step.row["state"], step.row["attempt"], step.effects) == ("queued", 2, ())
    assert step.row["not_before_ms"] is not None
    assert 4_750 <= step.row["not_before_ms"] <= 5_250
    due = event("retry_due", at_ms=6_000, task_id=ID, attempt=2, data=b"{}")
    again = apply(step.row, due)
    assert again.effects == (WorkEffect(b"{}", None),)
    assert again.row is not None
    assert again.row["not_before_ms"] is None
    assert apply(again.row, due).reason == "stale_retry_due"


def test_retry_after_is_honoured() -> None:
    step = apply(queued(), finished(ID, result=failure(retry_after_ms=30_000)))
    assert step.row is not None
    assert step.row["not_before_ms"] == 34_000


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({"attempt": 3}, failure()),
        ({"deadline_ms": 4_500}, failure()),
        ({}, failure(chunks=2)),
        ({"streamed": True}, failure()),
        ({}, failure(retry_after_ms=90_000_000)),
    ],
    ids=["last attempt", "deadline near", "tokens delivered", "tokens claimed", "retry-after too long"],
)
def test_a_failure_that_cannot_be_tried_again_is_the_end(changes: dict[str, Any], result: Any) -> None:
    row = queued(**changes)
    step = apply(row, finished(ID, attempt=row["attempt"], result=result))
    assert step.row is not None
    assert step.row["state"] == "failed"
    assert step.effects == (ResultEffect(result),)


def test_late_outcomes_of_old_attempts_are_dropped() -> None:
    row = queued(attempt=2)
    assert apply(row, finished(ID, attempt=1)).reason == "stale_finished"
    assert apply(row, claimed(ID, attempt=1)).reason == "stale_claimed"
    assert apply(row, event("released", at_ms=1, task_id=ID, attempt=1)).reason == "stale_released"


def test_only_one_worker_holds_an_attempt() -> None:
    row = queued(state="processing", worker="w1")
    assert apply(row, claimed(ID, worker="w2")).reason == "already_claimed"


def test_a_lost_worker_gives_its_tasks_back_and_then_fails_them() -> None:
    row = queued(state="processing", worker="w1")
    step = tasks.worker_lost(row, worker="w1", lost=True, now_ms=9, rules=RULES)
    assert step.row is not None
    assert (step.row["state"], step.row["attempt"], step.row["lost_workers"]) == ("queued", 2, 1)
    assert tasks.worker_lost(row, worker="w2", lost=True, now_ms=9, rules=RULES).reason == "not_lease_holder"
    often: Status = {**row, "lost_workers": 2}
    step = tasks.worker_lost(often, worker="w1", lost=True, now_ms=9, rules=RULES)
    assert step.row is not None
    assert (step.row["state"], step.row["error_code"]) == ("failed", "worker_lost")
    assert DeadLetterEffect("worker_lost") in step.effects


def test_a_goodbye_is_not_counted_as_a_loss() -> None:
    row = queued(state="processing", worker="w1", lost_workers=2)
    step = tasks.worker_lost(row, worker="w1", lost=False, now_ms=9, rules=RULES)
    assert step.row is not None
    assert (step.row["state"], step.row["lost_workers"]) == ("queued", 2)


def test_a_stream_that_was_delivered_from_is_not_begun_again() -> None:
    row = queued(state="processing", worker="w1", streamed=True)
    step = tasks.worker_lost(row, worker="w1", lost=True, now_ms=9, rules=RULES)
    assert step.row is not None
    assert (step.row["state"], step.row["error_code"]) == ("failed", "worker_lost")


def test_cancel_ends_and_stops_the_call() -> None:
    for row in (queued(), queued(state="processing", worker="w1")):
        step = apply(row, event("cancel", at_ms=1, task_id=ID, owner="key-1", reason="no longer needed"))
        assert step.row is not None
        assert (step.row["state"], step.row["error_message"]) == ("cancelled", "no longer needed")
        assert step.effects == (ResultEffect(None), CancelEffect("cancelled"))


def test_a_cancel_that_is_read_before_its_task_waits_for_it() -> None:
    early = apply(None, event("cancel", at_ms=1, task_id=ID, owner="key-1", reason="gone")).row
    assert early is not None
    STATUS.encode(early)
    foreign: Status = {**early, "owner": "key-2"}
    for row, ends in ((early, True), (foreign, False)):
        step = tasks.submitted(row, task(), task_id=ID, offset=5, created_ms=1_000, now_ms=1_500, rules=RULES)
        assert step.row is not None
        assert (step.row["state"], step.row["source_offset"]) == ("cancelled" if ends else "queued", 5)
        assert step.effects == ((ResultEffect(None), CancelEffect("cancelled")) if ends else submit().effects)


def test_another_tenant_cannot_cancel_a_task() -> None:
    assert apply(queued(), event("cancel", at_ms=1, task_id=ID, owner="key-2")).reason == "not_owner_cancel"


def test_the_deadline_counts_when_it_has_come() -> None:
    row = queued(deadline_ms=10_000)
    assert apply(row, event("deadline", at_ms=1, task_id=ID), now_ms=9_999).reason == "premature_deadline"
    step = apply(row, event("deadline", at_ms=1, task_id=ID), now_ms=10_000)
    assert step.row is not None
    assert (step.row["state"], step.row["error_code"]) == ("failed", "timeout")


def test_the_start_timeout_fails_a_task_that_no_worker_started() -> None:
    for row in (queued(start_deadline_ms=10_000), queued(start_deadline_ms=10_000, not_before_ms=9_000)):
        assert apply(row, event("deadline", at_ms=1, task_id=ID), now_ms=9_999).reason == "premature_deadline"
        step = apply(row, event("deadline", at_ms=1, task_id=ID), now_ms=10_000)
        assert step.row is not None
        assert (step.row["state"], step.row["error_code"], step.row["status_code"]) == ("failed", "start_timeout", 408)
        assert step.effects == (ResultEffect(None), CancelEffect("start_timeout"))


def test_a_started_task_has_met_its_start_timeout() -> None:
    row = apply(queued(start_deadline_ms=10_000), claimed(ID)).row
    assert row is not None
    assert apply(row, event("deadline", at_ms=1, task_id=ID), now_ms=20_000).reason == "premature_deadline"
    lost = tasks.worker_lost(row, worker="w1", lost=True, now_ms=9, rules=RULES).row
    assert apply(lost, event("deadline", at_ms=1, task_id=ID), now_ms=20_000).reason == "premature_deadline"


def test_clocks_of_the_task_come_before_those_of_the_settings() -> None:
    rules = TaskRules(start_timeout_ms=5_000, run_timeout_ms=6_000, retention_ms=7_000)
    own = task(start_timeout_ms=50_000, run_timeout_ms=60_000, retention_ms=70_000)
    for what, times in ((task(), (6_000, 6_000, 7_000)), (own, (51_000, 60_000, 70_000))):
        row = new_status(what, task_id=ID, offset=0, created_ms=1_000, rules=rules)
        assert (row["start_deadline_ms"], row["run_timeout_ms"], row["retention_ms"]) == times
        ended = apply(row, finished(ID)).row
        assert ended is not None
        assert ended["expires_ms"] == 4_000 + times[2]


def test_a_result_expires_and_its_row_goes() -> None:
    row = apply(queued(), finished(ID)).row
    assert row is not None
    assert apply(row, event("expire", at_ms=1, task_id=ID), now_ms=5_000).reason == "premature_expire"
    expired = apply(row, event("expire", at_ms=1, task_id=ID), now_ms=90_000_000).row
    assert expired is not None
    assert (expired["state"], expired["result_offset"]) == ("expired", None)
    assert apply(expired, event("expire", at_ms=1, task_id=ID), now_ms=900_000_000) == Transition(None)


def test_an_unknown_task_is_not_invented() -> None:
    assert apply(None, finished(ID)) == Transition(None, (), "unknown_task")


EVENTS = st.one_of(
    st.builds(
        claimed, st.just(ID), attempt=st.integers(1, 4), worker=st.sampled_from(["w1", "w2"]), streamed=st.booleans()
    ),
    st.builds(
        finished,
        st.just(ID),
        attempt=st.integers(1, 4),
        worker=st.sampled_from(["w1", "w2"]),
        result=st.sampled_from([outcome(), failure(), failure(retriable=False), failure(chunks=1)]),
    ),
    st.builds(
        event,
        st.sampled_from(["released", "cancel", "deadline", "retry_due"]),
        at_ms=st.just(1),
        task_id=st.just(ID),
        attempt=st.integers(0, 4),
        data=st.just(b"{}"),
    ),
)


@given(st.lists(st.tuples(EVENTS, st.integers(0, 40_000)), max_size=30))
def test_whatever_happens_there_is_at_most_one_outcome(sequence: list[tuple[Event, int]]) -> None:
    row: Status | None = submit(timeout_ms=200_000).row
    now_ms, results, works, attempts = 1_500, 0, 1, [1]
    for what, wait_ms in sequence:
        now_ms += wait_ms
        assert row is not None
        before = row
        step = apply(row, what, now_ms=now_ms)
        row = step.row
        assert row is not None
        STATUS.encode(row)
        results += sum(isinstance(effect, ResultEffect) for effect in step.effects)
        works += sum(isinstance(effect, WorkEffect) for effect in step.effects)
        attempts.append(row["attempt"])
        if before["state"] in TERMINAL:
            assert step.reason is not None
            assert row == before
        if step.reason is not None:
            assert row == before
            assert step.effects == ()
    assert row is not None
    assert results == (row["state"] in TERMINAL)
    assert works <= row["attempt"] <= RULES.max_attempts + len(sequence)
    assert attempts == sorted(attempts)


@given(st.integers(1, 12), st.text(min_size=1, max_size=8))
def test_back_off_doubles_within_its_bounds(attempt: int, name: str) -> None:
    rules = TaskRules()
    wait = tasks.backoff_ms(name, attempt, rules)
    middle = min(1000 * 2 ** (attempt - 1), 60_000)
    assert 0.75 * middle <= wait <= 1.25 * middle
    assert wait == tasks.backoff_ms(name, attempt, rules)
