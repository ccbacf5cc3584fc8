"""A batch: what it changes, what it writes, and that reading it twice writes nothing new."""

from __future__ import annotations

from typing import Any

from schemas.codec import CONTROL, RESULT, WORK
from schemas.events import event
from schemas.partitioning import stable_hash
from streams.intake.decode import Submission
from tests.support.memory_log import Log
from tests.support.records import claimed, failure, finished, task, task_id


def submission(task_id_: str, **changes: Any) -> Submission:
    return Submission(task_id_, task(**changes), 1_000, b"00-trace")


def test_submit_and_finish_in_one_batch() -> None:
    log, one = Log(), task_id(partition=3)
    transaction = log.transaction()
    transaction.submission(submission(one), partition=3, offset=9)
    transaction.event(finished(one), partition=3)
    log.commit(transaction)
    assert log.row(one, 3)["state"] == "completed"
    assert log.row(one, 3)["source_offset"] == 9
    [(place, records)] = [(place, records) for place, records in transaction.records.items() if "work" in place[0]]
    assert place == ("t.work.chat.online", stable_hash(one) % 4)
    work = WORK.decode(records[0].value or b"")
    assert (work["id"], work["attempt"], work["data"]) == (one, 1, b'{"model":"m","messages":[]}')
    assert ("traceparent", b"00-trace") in records[0].headers
    assert [result["id"] for result in log.results] == [one]


def test_a_queue_that_workers_serve_gets_no_work_records() -> None:
    log, one = Log(), task_id()
    transaction = log.transaction(work_partitions=0)
    transaction.submission(submission(one), partition=0, offset=0)
    log.commit(transaction)
    assert log.row(one)["state"] == "queued"
    assert not transaction.records


def test_a_batch_read_again_after_a_crash_writes_no_outputs() -> None:
    log, one = Log(), task_id()
    for _ in range(2):
        transaction = log.transaction()
        transaction.submission(submission(one), partition=0, offset=0)
        transaction.event(finished(one), partition=0)
        log.commit(transaction)
    assert len(log.results) == 1
    assert not transaction.records
    assert transaction.reasons == {"reread": 1, "stale_finished": 1}


def test_a_result_without_its_row_is_adopted_and_not_written_again() -> None:
    log, one = Log(), task_id()
    transaction = log.transaction()
    transaction.submission(submission(one), partition=0, offset=0)
    log.commit(transaction)
    cut_off = log.transaction()
    cut_off.event(finished(one, result=failure(retriable=False)), partition=0)
    [pending] = cut_off.results.values()
    assert pending.record is not None
    known = {(0, one): (77, RESULT.decode(pending.record.value or b""))}
    again = log.transaction(now_ms=9_000, known=known)
    again.event(finished(one), partition=0)
    [adopted] = again.results.values()
    assert (adopted.record, adopted.offset) == (None, 77)
    row = again.rows[0, one]
    assert row is not None
    assert (row["state"], row["status_code"], row["finished_ms"]) == ("failed", 503, 5_000)


def test_a_cancel_writes_a_control_and_a_result() -> None:
    log, one = Log(), task_id()
    transaction = log.transaction()
    transaction.submission(submission(one), partition=0, offset=0)
    transaction.event(event("cancel", at_ms=1, task_id=one), partition=0)
    control = CONTROL.decode(transaction.records["t.controls", 0][0].value or b"")
    assert (control["kind"], control["id"]) == ("cancel", one)
    log.commit(transaction)
    assert log.results[0]["state"] == "cancelled"


def test_events_in_foreign_partitions_or_without_a_task_are_counted() -> None:
    transaction = Log().transaction()
    transaction.event(finished(task_id(partition=2)), partition=1)
    transaction.event(finished("nonsense"), partition=1)
    assert transaction.reasons == {"wrong_partition": 1, "no_task_id": 1}


def test_a_lost_worker_loses_what_the_index_and_the_batch_say_it_holds() -> None:
    log, old, new = Log(), task_id(), task_id()
    transaction = log.transaction()
    for place, one in enumerate((old, new)):
        transaction.submission(submission(one), partition=0, offset=place)
    transaction.event(claimed(old), partition=0)
    log.commit(transaction)
    log.held[0, "w1"] = {old}
    transaction = log.transaction()
    transaction.event(claimed(new), partition=0)
    transaction.worker_lost("w1", partition=0, lost=True)
    log.commit(transaction)
    assert [(log.row(one)["state"], log.row(one)["attempt"]) for one in (old, new)] == [("queued", 2)] * 2


def test_an_expired_row_is_removed_by_a_tombstone() -> None:
    log, one = Log(), task_id()
    for now_ms, what in ((2_000, None), (3_000, finished(one)), (90_000_000, "expire"), (900_000_000, "expire")):
        transaction = log.transaction(now_ms=now_ms)
        if what is None:
            transaction.submission(submission(one), partition=0, offset=0)
        else:
            transaction.event(event("expire", at_ms=1, task_id=one) if isinstance(what, str) else what, partition=0)
        log.commit(transaction)
    assert log.rows == {}
    [(_, before, after)] = transaction.changes()
    assert before is not None
    assert after is None
