"""Which of several records of one queue counts."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from core.queues import QueueChanges, merge_registrations
from schemas.records import Queue
from tests.support import records


def queue(**changes: Any) -> Queue:
    """Build what the first task of key-1 registered."""
    return records.queue("q", **{"owner": "key-1", "created_ms": 1, **changes})


def fold(*given: Queue) -> Queue | None:
    known = None
    for record in given:
        known = merge_registrations(known, record)
    return known


def test_the_first_registration_stays() -> None:
    for explicit in (False, True):
        first = queue(explicit=explicit)
        assert fold(first, queue(explicit=explicit, owner="key-2", created_ms=2)) == first


def test_a_registration_by_name_goes_before_one_by_a_first_task_in_any_order() -> None:
    by_name = queue(owner="key-2", created_ms=2, explicit=True, served_by="workers")
    for order in permutations([queue(), by_name, queue(owner=None, created_ms=3)]):
        assert fold(*order) == by_name


def test_what_workers_serve_stays_theirs() -> None:
    given = queue(served_by="workers")
    assert fold(queue(), given) == given
    assert fold(queue(), given, queue(), queue(created_ms=5)) == given


def test_settings_of_the_same_registration_may_change() -> None:
    assert fold(queue(), queue(width=2)) == queue(width=2)


def test_the_last_settings_count_and_its_facts_stay() -> None:
    paused = queue(paused=True, concurrency=3, retention_ms=5)
    assert fold(queue(), paused) == paused
    assert fold(queue(), paused, queue()) == queue()
    assert fold(queue(), paused, queue(owner="key-2", created_ms=2)) == paused, "a twin changes no settings"


def test_a_registration_by_name_keeps_what_was_set_before_it_came() -> None:
    by_name = queue(owner="key-2", created_ms=2, explicit=True, retention_ms=7)
    assert fold(queue(), queue(paused=True, concurrency=3), by_name) == {**by_name, "paused": True, "concurrency": 3}


def test_changes_leave_what_they_do_not_name_and_zero_takes_a_limit_back() -> None:
    known = queue(width=2, concurrency=3, retention_ms=5)
    assert QueueChanges(paused=True).applied(known) == {**known, "paused": True}
    assert QueueChanges(concurrency=0, retention_ms=0).applied(known) == queue(width=2)


def test_no_limit_is_a_limit_that_was_named() -> None:
    named = QueueChanges(max_waiting=7).applied(queue())
    assert named == queue(max_waiting=7)
    assert QueueChanges(max_waiting=0).applied(named) == queue(max_waiting=0)
    assert QueueChanges(paused=False).applied(named) == named
    by_name = queue(owner="key-2", created_ms=2, explicit=True)
    assert fold(queue(), queue(max_waiting=0), by_name) == {**by_name, "max_waiting": 0}
