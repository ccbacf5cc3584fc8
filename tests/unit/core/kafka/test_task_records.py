"""A task is read back from its own record only: a topic that was re-created has another one at the same offset."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.kafka.log_reader import LogRecord
from core.kafka.task_records import result_of, task_of
from schemas import ids
from schemas.codec import RESULT, TASK
from schemas.partitioning import queue_number
from tests.support.records import task
from tests.support.results import result_of as result

TASK_ID = "TASK-1-0-B-261201000000-0001-000001"
AT_MS = 1_796_083_200_000
DIRECT = json.dumps({"queue": "chat", "endpoint": "/v1/chat/completions", "data": {"model": "m"}}).encode()


def record(value: bytes | None, **changes: Any) -> LogRecord:
    return LogRecord("headrace.tasks.online", 1, 7, AT_MS, None, value)._replace(**changes)


def test_a_record_that_names_its_task() -> None:
    found = record(TASK.encode(task(id=TASK_ID)))
    assert (task_of(found, TASK_ID) or {})["id"] == TASK_ID
    assert task_of(found, TASK_ID[:-1] + "2") is None


def test_a_record_whose_place_is_its_name() -> None:
    place: dict[str, Any] = {"queue_number": queue_number("chat"), "level": 0, "partition": 1, "offset": 7}
    task_id = str(ids.from_record(**place, timestamp_ms=AT_MS))
    assert (task_of(record(DIRECT), task_id) or {})["queue"] == "chat"
    assert task_of(record(DIRECT, timestamp=AT_MS + 60_000), task_id) is None, "another record at the same offset"
    assert task_of(record(DIRECT), TASK_ID) is None


@pytest.mark.parametrize("value", [None, b"", b"no task", b'{"id": 7}'])
def test_what_is_no_task(value: bytes | None) -> None:
    assert task_of(record(value), TASK_ID) is None


def test_a_result_is_read_from_the_record_of_its_own_task() -> None:
    found = record(RESULT.encode(result(TASK_ID)), topic="headrace.results.online")
    assert (result_of(found, TASK_ID) or {})["id"] == TASK_ID
    assert result_of(found, TASK_ID[:-1] + "2") is None


@pytest.mark.parametrize("value", [None, b"", b"no result", RESULT.encode(result(TASK_ID))[:-4]])
def test_what_is_not_a_result_is_none_and_raises_nothing(value: bytes | None) -> None:
    assert result_of(record(value), TASK_ID) is None
