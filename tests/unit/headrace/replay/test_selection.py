"""From records to chosen tasks, as the scheduler has read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.dead_letters.record import dead_letter
from core.kafka.log_reader import LogRecord
from core.settings.models import Settings
from headrace.replay.choice import Choice
from headrace.replay.rejected import RejectedRecords, place_of
from headrace.replay.selection import Selection, TaskSelector, Used
from schemas import topics
from schemas.codec import TASK
from schemas.headers import headers
from schemas.ids import TaskId, batch_line_id
from schemas.partitioning import FORWARDED, home_partition, key_spread, queue_number
from tests.support.records import task, task_id

AT_MS = 1_795_000_000_000
BATCH = TaskId(7, 1, "P", AT_MS // 1000, 0, 5)
PARTITIONS = 6


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"data_dir": str(tmp_path), "auth": {"api_keys": ["one"]}})


def found(value: bytes | None, *, partition: int = 0, offset: int = 7, head: Any = ()) -> LogRecord:
    return LogRecord(topics.tasks(0), partition, offset, AT_MS, b"k", value, list(head))


def written(**changes: Any) -> LogRecord:
    one = changes.pop("id", None) or task_id()
    described = headers(kind="task", ce_id=one, at_ms=AT_MS, queue="chat", level=0, owner="key-1")
    return found(TASK.encode(task(id=one, **changes)), head=described)


def picks(settings: Settings, *records: LogRecord, choice: Choice | None = None, used: Any = None) -> list[Selection]:
    return list(TaskSelector(settings, choice or Choice(), used, {}).select(0, records))


def test_outcomes_are_found_by_id(settings: Settings) -> None:
    ids = [task_id() for _ in range(3)]
    used = {ids[0]: Used("completed", 1, 2), ids[1]: Used("failed", 0, 0)}
    records = [written(id=one) for one in ids]
    for endings, chosen in (((), ids), (("failed",), ids[1:2]), (("none",), ids[2:]), (("cancelled",), [])):
        found_ids = [one.task_id for one in picks(settings, *records, choice=Choice(endings=endings), used=used)]
        assert found_ids == chosen


def test_what_the_scheduler_refused_is_passed_over_and_counted(settings: Settings) -> None:
    picker = TaskSelector(settings, Choice(), None, {})
    bad = [found(None), found(b"\x00\x00\x00\x00\x01x"), found(b"[]"), written(level=1), written(endpoint="no path")]
    assert list(picker.select(0, bad)) == []
    assert (picker.read, picker.passed_over["unreadable"]) == (5, 5)


def test_dead_lettered_records_are_skipped_by_a_replay(settings: Settings) -> None:
    records = [written()._replace(offset=offset) for offset in range(4)]
    picker = TaskSelector(settings, Choice(), None, {}, RejectedRecords({(0, 0, 1), (1, 0, 2), (0, 5, 3)}))
    assert [one.offset for one in picker.select(0, records)] == [0, 2, 3]
    assert picker.passed_over == {"refused": 1}


def line(number: int, batch_id: str = BATCH.batch()) -> LogRecord:
    """A line of a batch as its feeder writes it."""
    one = str(batch_line_id(BATCH, max(0, number) % 1_000, queue_number=queue_number("chat"), stamp_s=AT_MS // 1000))
    described = headers(kind="task", ce_id=one, at_ms=AT_MS, queue="chat", level=1, owner="key-1")
    made = task(id=one, level=1, mode="batch", batch_id=batch_id, batch_line=number, custom_id=f"c-{number}")
    return found(TASK.encode(made), head=described)


@given(
    fed=st.none() | st.integers(0, 30),
    runs=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=6),
)
def test_a_line_counts_once_and_only_if_it_became_a_task(fed: int | None, runs: list[tuple[int, int]]) -> None:
    numbers = [number for begin, count in runs for number in range(begin, begin + count)]
    judged = RejectedRecords(submitted_lines={} if fed is None else {BATCH.batch(): fed})
    settings = Settings.model_validate({"auth": {"api_keys": ["one"]}})
    picker = TaskSelector(settings, Choice(), None, {}, judged)
    records = [line(number) for number in numbers] + [line(0, "batch_other"), line(-1), line(1 << 30)]
    chosen = [one.task["batch_line"] for one in picker.select(1, records) if one.task["batch_id"] == BATCH.batch()]
    assert sorted(chosen) == sorted({number for number in numbers if fed is None or number < fed})
    assert picker.passed_over["lines"] == len(numbers) - len(chosen) + 2


def letter(record: LogRecord, **changes: Any) -> LogRecord:
    """The letter that a scheduler writes of a record."""
    _, partition, made = dead_letter(Settings(), record, reason="no", **changes)
    return LogRecord(topics.DEAD_LETTERS, partition, 0, AT_MS, made.key, made.value, made.headers)


def test_a_dead_letter_names_its_record_unless_it_became_a_task() -> None:
    levels = {b"tasks.online": 0, b"tasks.offline": 1}
    records = [LogRecord(f"tasks.{level}", 3, 77, AT_MS, b"k", b"v") for level in ("online", "offline", "other")]
    assert [place_of(letter(one, field="id"), levels) for one in records] == [(0, 3, 77), (1, 3, 77), None]
    assert place_of(letter(records[0], attempt=4), levels) is None, "it has lost its workers"
    assert place_of(records[0]._replace(headers=[("x-redriven", b"0-1")]), levels) is None
    assert place_of(letter(records[0]._replace(offset=-1)), levels) is None


def direct(key: str | None, *, partition: int, forwarded: bool = False) -> LogRecord:
    """A task that its producer wrote as JSON."""
    data: dict[str, Any] = {"queue": "chat", "endpoint": "/v1/chat/completions", "data": {"model": "m"}}
    head = [(FORWARDED, b"0/1")] if forwarded else []
    return found(orjson.dumps(data | ({"idempotency_key": key} if key else {})), partition=partition, head=head)


def test_direct_records_are_read_like_all_others(settings: Settings) -> None:
    [one] = picks(settings, direct(None, partition=2))
    assert (one.task["queue"], one.model, one.partition) == ("chat", "m", 2)
    assert "-K-" in one.task_id


def test_of_a_rerouted_direct_record_only_the_new_one_counts(settings: Settings) -> None:
    [somewhere] = picks(settings, direct(None, partition=0))
    home = home_partition(
        "chat", key_spread(somewhere.task["owner"], "key"), width=0, partitions=settings.kafka.partitions
    )
    chosen = picks(settings, *(direct("key", partition=number) for number in range(PARTITIONS)))
    assert [one.partition for one in chosen] == [home]
    elsewhere = (home + 1) % PARTITIONS
    assert len(picks(settings, direct("key", partition=elsewhere, forwarded=True))) == 1
