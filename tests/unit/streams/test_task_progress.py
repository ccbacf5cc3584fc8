"""Progress in the state record: it only grows within an attempt, and is 100 only with the outcome."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import STATUS
from schemas.events import event
from schemas.records import Event, Status
from streams.outputs import status_record
from streams.state_machine import tasks
from streams.state_machine.rows import TaskRules, new_status
from tests.support.records import claimed, failure, finished, task, task_id

RULES = TaskRules()
ID = task_id()


def progress(percent: int, *, attempt: int = 1, worker: str = "w1") -> Event:
    return event("progress", at_ms=1, task_id=ID, attempt=attempt, worker=worker, progress=percent)


def running() -> Status:
    row = new_status(task(), task_id=ID, offset=5, created_ms=1_000, rules=RULES)
    return {**row, "state": "processing", "worker": "w1"}


def after(*events: Event) -> Status:
    row: Status | None = running()
    for what in events:
        assert row is not None
        row = tasks.apply(row, what, now_ms=4_000, rules=RULES).row
    assert row is not None
    return row


def test_progress_grows() -> None:
    assert after(progress(10), progress(40))["progress"] == 40


def test_progress_never_goes_back() -> None:
    assert after(progress(40), progress(10))["progress"] == 40


def test_progress_begins_again_with_the_next_attempt() -> None:
    assert after(progress(40), finished(ID, result=failure()))["progress"] == 0


def test_completed_means_100_and_nothing_else_does() -> None:
    assert after(progress(100))["progress"] == 99
    assert after(progress(40), finished(ID))["progress"] == 100
    assert after(progress(40), finished(ID, result=failure(retriable=False)))["progress"] == 40


EVENTS = st.one_of(
    st.builds(progress, st.integers(-5, 200), attempt=st.integers(1, 3), worker=st.sampled_from(["w1", "w2"])),
    st.builds(claimed, st.just(ID), attempt=st.integers(1, 3), worker=st.sampled_from(["w1", "w2"])),
    st.builds(finished, st.just(ID), attempt=st.integers(1, 3), result=st.sampled_from([None, failure()])),
    st.builds(lambda attempt: event("retry_due", at_ms=1, task_id=ID, attempt=attempt), st.integers(1, 3)),
)


@given(st.lists(EVENTS, max_size=25))
def test_whatever_happens_progress_is_monotonic_within_an_attempt(events: list[Event]) -> None:
    row = running()
    for what in events:
        following = tasks.apply(row, what, now_ms=4_000, rules=RULES).row
        assert following is not None
        if following["attempt"] == row["attempt"]:
            assert following["progress"] >= row["progress"]
        assert (following["progress"] == 100) == (following["state"] == "completed")
        row = following


def test_each_step_of_progress_is_an_event_of_its_own_for_readers() -> None:
    """Readers of state records detect repetitions by ce_id."""
    one, other = (status_record({**running(), "progress": percent}, now_ms=7_000) for percent in (10, 20))
    assert dict(one.headers)["ce_id"] != dict(other.headers)["ce_id"]
    assert STATUS.decode(one.value or b"")["updated_ms"] == 7_000
