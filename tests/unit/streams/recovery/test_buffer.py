"""Events that overtake their task after a crash."""

from __future__ import annotations

from schemas.events import event
from streams.recovery.buffer import PendingEvent, RecoveryBuffer

ENDED = event("finished", at_ms=1, task_id="T", attempt=1, worker="w")
BEAT = event("heartbeat", at_ms=1, worker="w")


def test_only_what_workers_say_waits_and_only_while_tasks_are_read_again() -> None:
    replay = RecoveryBuffer()
    assert not replay.must_wait(0, ENDED)
    replay.begin({0: 10}, ())
    assert replay.must_wait(0, ENDED)
    assert not replay.must_wait(1, ENDED)
    assert not replay.must_wait(0, BEAT)
    assert not replay.must_wait(0, event("cancel", at_ms=1, task_id="T"))  # remembered by the machine itself
    replay.pop_unmatched(0, 10)
    assert not replay.must_wait(0, ENDED)


def test_a_task_takes_what_waited_for_it_in_order() -> None:
    replay = RecoveryBuffer()
    replay.begin({0: 10}, ())
    claim = event("claimed", at_ms=1, task_id="T", attempt=1, worker="w")
    replay.hold(0, PendingEvent(1, claim))
    replay.hold(0, PendingEvent(2, ENDED))
    replay.hold(0, PendingEvent(3, {**ENDED, "id": "U"}))
    assert [held.source for held in replay.pop_task(0, "T")] == [1, 2]
    assert replay.pop_task(0, "T") == []
    assert replay.pop_unmatched(0, 9) == []
    assert [held.source for held in replay.pop_unmatched(0, 10)] == [3]
    assert replay.pop_unmatched(0, 11) == []


def test_attempts_belong_to_one_assignment() -> None:
    replay = RecoveryBuffer()
    replay.begin({}, [(0, "T", 1)])
    assert replay.was_attempted(0, "T", 1)
    assert not replay.was_attempted(0, "T", 2)
    replay.begin({}, ())
    assert not replay.was_attempted(0, "T", 1)
