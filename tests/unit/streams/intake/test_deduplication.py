"""Twins of one Idempotency-Key: one of them is run, whatever is read again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import STATUS
from schemas.events import event
from schemas.records import Task
from streams.intake import deduplication
from streams.intake.decode import Submission
from tests.support.memory_log import Log
from tests.support.records import finished, task, task_id

DAY_MS = 86_400_000


def duplicate(one: str, *, created_ms: int = 1_000, key: str = "k", **changes: object) -> Submission:
    return Submission(one, task(idempotency_key=key, **changes), created_ms, None)


def works(records: object) -> int:
    return sum(len(found) for place, found in records.items() if ".work" in f".{place[0]}")  # type: ignore[attr-defined]


def test_a_duplicate_points_to_the_original_and_has_no_effect() -> None:
    log, one, two = Log(), task_id(), task_id()
    transaction = log.transaction()
    transaction.submission(duplicate(one), partition=0, offset=1)
    transaction.submission(duplicate(two), partition=0, offset=2)
    log.commit(transaction)
    assert works(transaction.records) == 1
    assert (log.row(two)["duplicate_of"], log.row(two)["error_code"]) == (one, None)
    assert log.row(one)["duplicate_of"] is None
    assert transaction.reasons == {"duplicate": 1}
    assert next(iter(transaction.rows))[1].startswith(deduplication.PREFIX), (
        "the key must be durable before its first task"
    )


def test_another_body_under_the_key_is_refused() -> None:
    log, one, two, three = Log(), task_id(), task_id(), task_id()
    transaction = log.transaction()
    transaction.submission(duplicate(one), partition=0, offset=1)
    transaction.submission(duplicate(two, data=b'{"other":1}'), partition=0, offset=2)
    transaction.submission(duplicate(three, endpoint="/v1/embeddings"), partition=0, offset=3)
    log.commit(transaction)
    assert works(transaction.records) == 1
    for refused in (two, three):
        assert (log.row(refused)["error_code"], log.row(refused)["status_code"]) == (deduplication.CONFLICT, 422)


def test_owner_queue_and_key_set_tasks_apart() -> None:
    log, ids = Log(), [task_id() for _ in range(4)]
    transaction = log.transaction()
    others: list[dict[str, object]] = [{}, {"owner": "key-2"}, {"queue": "other"}, {"key": "k2"}]
    for offset, (one, changes) in enumerate(zip(ids, others, strict=True)):
        transaction.submission(duplicate(one, **changes), partition=0, offset=offset)  # type: ignore[arg-type]
    assert works(transaction.records) == 4


def test_the_key_stands_for_an_ended_task_too_until_its_time_is_over() -> None:
    log, one, two, three = Log(), task_id(), task_id(), task_id()
    transaction = log.transaction(now_ms=1_000)
    transaction.submission(duplicate(one), partition=0, offset=1)
    transaction.event(finished(one), partition=0)
    log.commit(transaction)
    transaction = log.transaction(now_ms=DAY_MS)
    transaction.submission(duplicate(two, created_ms=DAY_MS), partition=0, offset=2)
    log.commit(transaction)
    assert log.row(two)["duplicate_of"] == one
    transaction = log.transaction(now_ms=DAY_MS + 1_001)
    transaction.submission(duplicate(three, created_ms=DAY_MS + 1_001), partition=0, offset=3)
    log.commit(transaction)
    assert log.row(three)["duplicate_of"] is None
    assert works(transaction.records) == 1


def test_a_duplicate_read_again_late_is_still_a_duplicate() -> None:
    log, one, two = Log(), task_id(), task_id()
    transaction = log.transaction(now_ms=1_000)
    transaction.submission(duplicate(one), partition=0, offset=1)
    log.commit(transaction)
    transaction = log.transaction(now_ms=DAY_MS + 60_000)
    transaction.submission(duplicate(two, created_ms=2_000), partition=0, offset=2)
    log.commit(transaction)
    assert log.row(two)["duplicate_of"] == one


def test_reservations_and_duplicates_are_removed_after_their_window() -> None:
    log, one, two = Log(), task_id(), task_id()
    transaction = log.transaction(now_ms=1_000)
    transaction.submission(duplicate(one), partition=0, offset=1)
    transaction.submission(duplicate(two), partition=0, offset=2)
    log.commit(transaction)
    [key] = [name for _, name in log.rows if name.startswith(deduplication.PREFIX)]
    for name, at_ms in (
        (two, 1_000 + deduplication.DUPLICATE_WINDOW_MS),
        (key, 1_000 + DAY_MS + deduplication.MARGIN_MS),
    ):
        early = log.transaction(now_ms=at_ms - 1)
        early.event(event("expire", at_ms=1, task_id=name), partition=0)
        assert early.reasons == {"premature_expire": 1}
        due = log.transaction(now_ms=at_ms)
        due.event(event("expire", at_ms=1, task_id=name), partition=0)
        log.commit(due)
        assert (0, name) not in log.rows


def test_big_and_small_bodies_have_a_digest_of_their_content() -> None:
    whole: Task = task(data=b"{}")
    ref = {"uri": "u", "size": 2, "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}
    assert (
        deduplication.digest(whole)
        == deduplication.digest(task(data="{}"))
        == deduplication.digest(task(data=None, data_ref=ref))
    )
    assert deduplication.digest(whole) != deduplication.digest(task(data=b"[]"))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), st.booleans()), max_size=12),
)
def test_any_order_of_duplicates_and_crashes_gives_one_task(
    sent: list[tuple[int, bool]], batches: list[tuple[int, int, bool]]
) -> None:
    """Each batch has some records; it is committed, or crashes after some state records and is read again."""
    inputs = [(task_id(), f"k{key}", other) for key, other in sent]
    log, at, work = Log(), 0, set()
    for size, retained, crashes in [*batches, *[(4, 0, False)] * 12]:
        transaction = log.transaction(now_ms=2_000)
        taken = inputs[at : at + size]
        for offset, (one, key, other) in enumerate(taken, at):
            transaction.submission(duplicate(one, key=key, data=b"[]" if other else b"{}"), partition=0, offset=offset)
        work |= {found.key for place, records in transaction.records.items() if "work" in place[0] for found in records}
        if crashes:  # rows become durable in their order, but not all of them
            for home, row in list(transaction.rows.items())[:retained]:
                assert row is not None
                log.rows[home] = STATUS.encode(row)
        else:
            log.commit(transaction)
            at += len(taken)
    firsts = {key: next(one for one, name, _ in inputs if name == key) for _, key, _ in inputs}
    assert {(found or b"").decode() for found in work} == set(firsts.values())
    for one, key, other in inputs:
        row = log.row(one)
        first = next(change for name_id, _, change in inputs if name_id == firsts[key])
        assert row["duplicate_of"] == (None if one == firsts[key] else firsts[key])
        assert (row["error_code"] == deduplication.CONFLICT) == (other != first)
