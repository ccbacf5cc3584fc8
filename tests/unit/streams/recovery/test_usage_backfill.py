"""Usage of a task: in its result, and once in the usage topic, also after a crash."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any, cast

from aiokafka import TopicPartition

from core.kafka.log_reader import LogReader, LogRecord
from core.kafka.producer import Record
from core.settings.models import ModelSettings, Settings
from schemas.codec import RESULT, USAGE
from schemas.common import Usage
from schemas.events import event
from schemas.headers import find, traceparent_of
from streams.intake.decode import Submission
from streams.outputs import usage_record
from streams.recovery.scan import find_missing_usage
from streams.state_machine.rows import TaskRules
from streams.transaction import StateKey, Transaction
from tests.support.memory_log import Log
from tests.support.records import failure, finished, outcome, task, task_id
from tests.support.results import result_of

COUNTED: Usage = {"prompt_tokens": 1_000, "completion_tokens": 500, "total_tokens": 1_500}
PRICED = {"m": ModelSettings.model_validate({"prompt_price": "0.001", "completion_price": "0.002", "currency": "EUR"})}
USAGE_0 = ("t.usage", 0)
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CHILD = TRACE[:36] + b"1" * 16 + b"-01"


def ended(one: str, log: Log | None = None, *, rules: TaskRules | None = None, **changes: Any) -> Transaction:
    """Fold a task and its outcome."""
    transaction = (log or Log()).transaction()
    transaction._rules = rules or TaskRules(prices=PRICED)
    transaction.submission(Submission(one, task(), 1_000, None), partition=0, offset=0)
    transaction.event(finished(one, result=outcome(usage=COUNTED, first_token_ms=2_100, **changes)), partition=0)
    return transaction


def results(transaction: Transaction) -> list[Record]:
    return [pending.record for pending in transaction.results.values() if pending.record is not None]


def test_a_result_has_its_cost_and_its_request_digest() -> None:
    one = task_id()
    [record] = results(ended(one))
    result = RESULT.decode(record.value or b"")
    assert result["request_digest"] == sha256(task()["data"] or b"").hexdigest()  # type: ignore[arg-type]
    assert (result["cost"], result["currency"]) == ("0.0020000", "EUR")
    assert (result["first_token_ms"], result["lost_workers"]) == (2_100, 0)
    assert find(record.headers, "x-model") == b"m"
    assert find(record.headers, "ce_type") == b"io.headrace.result.completed"


def test_the_digest_of_a_stored_body_is_the_one_of_its_store() -> None:
    one, transaction = task_id(), Log().transaction()
    stored = task(data=None, data_ref={"uri": "tasks/x", "size": 9, "sha256": "ab" * 32})
    transaction.submission(Submission(one, stored, 1_000, None), partition=0, offset=0)
    row = transaction.rows[0, one]
    assert row is not None
    assert row["request_digest"] == "ab" * 32


def test_a_model_without_prices_has_no_cost() -> None:
    one = task_id()
    for rules in (TaskRules(), TaskRules(prices={"m": ModelSettings.model_validate({})})):
        [record] = results(ended(one, rules=rules))
        result = RESULT.decode(record.value or b"")
        assert (result["cost"], result["currency"]) == (None, None)


def test_every_result_has_its_usage_and_nothing_else_has() -> None:
    one, log = task_id(), Log()
    transaction = ended(one, log)
    [record] = transaction.usage[USAGE_0]
    usage = USAGE.decode(record.value or b"")
    assert {name: usage[name] for name in COUNTED} == COUNTED  # type: ignore[literal-required]
    assert (usage["id"], usage["state"], usage["cost"], usage["currency"]) == (one, "completed", "0.0020000", "EUR")
    assert (
        record.timestamp_ms
        == usage["finished_ms"]
        == RESULT.decode(results(transaction)[0].value or b"")["finished_ms"]
    )
    log.commit(transaction)
    again = log.transaction()
    again.submission(Submission(one, task(), 1_000, None), partition=0, offset=0)
    again.event(finished(one), partition=0)
    assert not again.usage


def test_a_retried_task_counts_once_and_missing_usage_is_zero() -> None:
    one, transaction = task_id(), Log().transaction()
    transaction.submission(Submission(one, task(), 1_000, None), partition=0, offset=0)
    transaction.event(finished(one, result=failure(usage=COUNTED)), partition=0)
    assert not transaction.usage
    transaction.rows[0, one] = {**transaction.rows[0, one], "not_before_ms": None}  # type: ignore[misc, typeddict-item]
    transaction.event(finished(one, attempt=2), partition=0)
    [record] = transaction.usage[USAGE_0]
    usage = USAGE.decode(record.value or b"")
    assert (usage["attempt"], usage["total_tokens"], usage["cost"]) == (2, 0, None)


def test_a_recovered_result_adds_no_usage_record() -> None:
    one, log = task_id(), Log()
    [record] = results(ended(one, log))
    transaction = log.transaction(known={(0, one): (7, RESULT.decode(record.value or b""))})
    transaction.submission(Submission(one, task(), 1_000, None), partition=0, offset=0)
    transaction.event(finished(one), partition=0)
    assert transaction.reasons["result_recovered"] == 1
    assert not transaction.usage


class Topic:
    """The usage topic in memory."""

    def __init__(self, *records: Record) -> None:
        self.records = records
        self.asked: list[tuple[TopicPartition, int]] = []

    async def scan(self, tp: TopicPartition, *, from_ms: int) -> AsyncIterator[LogRecord]:
        """Yield what lies in a partition."""
        self.asked.append((tp, from_ms))
        for offset, record in enumerate(self.records):
            yield LogRecord(tp.topic, tp.partition, offset, record.timestamp_ms or 0, record.key, record.value)


async def test_after_a_crash_the_records_that_lack_are_found() -> None:
    there, topic_missing, elsewhere = task_id(), task_id(), task_id(partition=2)
    found: dict[StateKey, tuple[int, Any]] = {
        (0, there): (1, result_of(there, finished_ms=9_000)),
        (0, topic_missing): (2, result_of(topic_missing, finished_ms=8_000)),
        (2, elsewhere): (1, result_of(elsewhere, finished_ms=7_000)),
    }
    topic = Topic(usage_record(result_of(there)))
    missing = await find_missing_usage(Settings(), found, lookup=cast("LogReader", topic))
    name = Settings().topic("usage")
    assert {place: [record.key for record in records] for place, records in missing.items()} == {
        (name, 0): [topic_missing.encode()],
        (name, 2): [elsewhere.encode()],
    }
    assert topic.asked == [(TopicPartition(name, 0), 8_000), (TopicPartition(name, 2), 7_000)]


def test_what_comes_later_is_in_the_trace_of_the_task() -> None:
    """A deadline has no trace context of its own: its result and work use that of the state record."""
    one, log = task_id(), Log()
    transaction = log.transaction()
    transaction.submission(Submission(one, task(timeout_ms=60_000), 1_000, TRACE), partition=0, offset=0)
    assert transaction.rows[0, one] is not None
    log.commit(transaction)
    late = log.transaction(now_ms=90_000)
    late.event(event("deadline", at_ms=90_000, task_id=one), partition=0)
    [record] = results(late)
    assert find(record.headers, "traceparent") == TRACE
    attempt = log.transaction()
    attempt.event(finished(one), partition=0, traceparent=CHILD)
    [record] = results(attempt)
    assert find(record.headers, "traceparent") == CHILD


def test_a_broken_trace_context_of_a_record_is_ignored() -> None:
    assert traceparent_of([("traceparent", TRACE)]) == TRACE
    for broken in (b"", b"00-\xff", TRACE[:-1], TRACE + b"-\n", b"ff" + TRACE[2:], None):
        assert traceparent_of([("traceparent", broken)]) is None
