"""What the scheduler takes and what it buries: nothing that is read may end the process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import EVENT, STATUS, TASK
from schemas.events import event
from schemas.ids import parse
from schemas.validation import MAX_CREATED_MS
from streams.intake.decode import InvalidRecord, Submission, read_event, read_task
from streams.state_machine import tasks
from streams.state_machine.rows import TaskRules
from tests.support.records import finished, outcome, task, task_id

MAX = 1_048_576


def message(value: bytes | None, *, partition: int = 0, offset: int = 7) -> Any:
    return SimpleNamespace(
        topic="tasks.online", partition=partition, offset=offset, timestamp=1_795_000_000.25, value=value, headers=[]
    )


def read(changes: dict[str, Any], **place: int) -> Submission | InvalidRecord:
    return read_task(message(TASK.encode(task(**changes)), **place), level=0, max_bytes=MAX)


def test_an_id_comes_from_the_place_when_there_is_none() -> None:
    first, again = read({}, partition=3, offset=41), read({}, partition=3, offset=41)
    assert isinstance(first, Submission)
    assert first == again
    found = parse(first.task_id)
    assert (found.mode, found.partition, found.serial) == ("K", 3, 41)


def test_the_key_may_come_as_a_header() -> None:
    for own in (None, "from-header"):
        record = message(TASK.encode(task(idempotency_key=own)))
        record.headers = [("idempotency-key", b"from-header")]
        found = read_task(record, level=0, max_bytes=MAX)
        assert isinstance(found, Submission)
        assert found.task["idempotency_key"] == "from-header"
    record.headers = [("idempotency-key", b"caf\xe9")]
    record.value = TASK.encode(task())
    refused = read_task(record, level=0, max_bytes=MAX)
    assert isinstance(refused, InvalidRecord)
    assert refused.field == "idempotency_key"


def test_a_task_without_a_time_has_that_of_its_record() -> None:
    found = read({"created_ms": 0})
    assert isinstance(found, Submission)
    assert found.created_ms == 1_795_000_000_250


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"level": 1}, "level"),
        ({"queue": "a.b"}, "queue"),
        ({"endpoint": "nowhere"}, "endpoint"),
        ({"data": ""}, "data"),
        ({"data": b"x" * (MAX - 1000)}, "data"),
        ({"id": "TASK-1"}, "id"),
        ({"id": task_id(partition=5)}, "id"),
        ({"timeout_ms": -1}, "timeout"),
        ({"timeout_ms": 10**15}, "timeout"),
        ({"created_ms": MAX_CREATED_MS + 1}, "created_ms"),
        ({"created_ms": -5}, "created_ms"),
        ({"callback_url": "ftp://x"}, "callback_url"),
        ({"owner": "o" * 300}, "owner"),
    ],
)
def test_a_wrong_task_is_poison_that_names_the_field(changes: dict[str, Any], field: str) -> None:
    found = read(changes)
    assert isinstance(found, InvalidRecord)
    assert found.field == field


@given(st.binary(max_size=200) | st.none())
def test_no_bytes_end_the_process(value: bytes | None) -> None:
    framed = None if value is None else b"\0\0\0\0" + value
    for raw in (value, framed):
        read_task(message(raw), level=0, max_bytes=MAX)
        read_event(message(raw), max_bytes=MAX)


@given(st.integers(0, MAX_CREATED_MS), st.integers(0, 86_400_000))
def test_every_accepted_time_fits_a_row(created_ms: int, timeout_ms: int) -> None:
    found = read({"created_ms": created_ms, "timeout_ms": timeout_ms})
    assert isinstance(found, Submission)
    step = tasks.submitted(
        None,
        found.task,
        task_id=found.task_id,
        offset=0,
        created_ms=found.created_ms,
        now_ms=1_795_000_000_000,
        rules=TaskRules(),
    )
    assert step.row is not None
    STATUS.encode(step.row)


def test_an_answer_too_large_for_a_result_fails_its_task() -> None:
    big = EVENT.encode(finished(task_id(), result=outcome(body=b"x" * (MAX - 1000))))
    found = read_event(message(big), max_bytes=MAX)
    assert not isinstance(found, InvalidRecord)
    assert found["outcome"] is not None
    assert (found["outcome"]["error_code"], found["outcome"]["body"]) == ("answer_too_large", None)


def test_long_words_of_others_are_cut() -> None:
    long = EVENT.encode(event("cancel", at_ms=1, task_id=task_id(), reason="r" * 5_000))
    found = read_event(message(long), max_bytes=MAX)
    assert not isinstance(found, InvalidRecord)
    assert len(found["reason"] or "") == 1_000
