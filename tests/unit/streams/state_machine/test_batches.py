"""Properties of the batch machine: whatever comes, how often and in which order, the books of a batch balance."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from schemas import bitmap
from schemas.batches import BATCH_ENDED, Batch
from schemas.codec import BATCH
from schemas.events import event
from schemas.records import Event
from streams.state_machine import batches
from streams.state_machine.batch_rows import MAX_PARTS, MAX_PROPOSAL_BYTES, due_ms, initial_batch
from tests.support.memory_batch_log import CREATED_MS, RETENTION_MS, batch_id, line, part, proposed, validated

ONE = batch_id()
TOTAL = 12
lines = st.integers(0, TOTAL)
states = st.sampled_from(["completed", "failed", "cancelled"])
KINDS = ["batch_validated", "batch_invalid", "batch_part", "batch_cancel", "batch_due"]


class Books(RuleBasedStateMachine):
    """Feeder, workers, writer, user and clock in any order; each may repeat itself or come too late."""

    parts = Bundle("parts")

    @initialize()
    def begin(self) -> None:
        self.row: Batch | None = initial_batch(proposed(ONE), offset=0, taken=lambda _: False)
        self.now_ms = CREATED_MS
        self.results = 0
        self.over = False

    def apply(self, what: Event) -> None:
        before = self.row
        step = batches.apply(before, what, now_ms=self.now_ms, retention_ms=RETENTION_MS)
        if step.reason is not None:
            assert step.batch == before
            assert step.line_error is None
            return
        self.row = step.batch
        if step.line_error is not None and self.row is not None:
            for number in batches.unfinished_lines(self.row):
                self.row = batches.line_ended(self.row, number, "cancelled", None, now_ms=self.now_ms, with_batch=True)
                self.add_result()

    def add_result(self) -> None:
        assert self.row is not None
        first = self.results if self.row["written_to"] is None else None
        self.row = batches.result_written(self.row, self.results, first=first)
        self.results += 1

    @rule(total=st.integers(0, TOTAL))
    def validate(self, total: int) -> None:
        self.apply(validated(ONE, total))

    @rule()
    def refuse(self) -> None:
        self.apply(event("batch_invalid", at_ms=1, task_id=ONE))

    @rule(owner=st.sampled_from([None, "key-1", "key-2"]))
    def cancel(self, owner: str | None) -> None:
        self.apply(event("batch_cancel", at_ms=1, task_id=ONE, owner=owner))

    @rule(later_ms=st.sampled_from([0, 1_000, 90_000_000]))
    def tick(self, later_ms: int) -> None:
        self.now_ms += later_ms
        self.apply(event("batch_due", at_ms=1, task_id=ONE))

    @rule(number=lines)
    def feed(self, number: int) -> None:
        if self.row is None:
            return
        made, before = line(self.row, number), self.row
        step = batches.line_submitted(before, made.task, task_id=made.task_id, unknown=True, has_result=False)
        if step.reason is None and step.batch is not None:
            assert number <= before["fed"]
            self.row = step.batch

    @rule(number=lines, state=states, times=st.integers(1, 2))
    def end(self, number: int, state: Any, times: int) -> None:
        if self.row is None or number >= self.row["fed"]:
            return
        for _ in range(times):
            before = self.row
            self.row = batches.line_ended(before, number, state, None, now_ms=self.now_ms)
            if self.row is not before:
                self.add_result()

    @rule(target=parts, wanted=st.sets(lines), forward=st.booleans(), last=st.booleans())
    def write(self, wanted: set[int], forward: bool, last: bool) -> Event:
        """Write what has ended and is not written, or anything; of a last part all that lacks."""
        begin = (self.row["written_to"] or 0) if self.row is not None else 0
        chosen = wanted
        if last and self.row is not None:
            chosen = set(bitmap.missing(self.row["written"], self.row["total"]))
        what = part(ONE, begin, max(begin, self.results) if forward else begin, chosen, last=last)
        self.apply(what)
        return what

    @rule(what=parts)
    def write_again(self, what: Event) -> None:
        self.apply(what)

    @invariant()
    def the_books_balance(self) -> None:
        row = self.row
        if row is None:
            return
        assert row["completed"] + row["failed"] <= bitmap.count(row["ended"]) <= row["fed"] <= row["total"]
        assert bitmap.width(row["ended"]) <= row["fed"]
        if row["state"] not in ("cancelling", "cancelled", "expired") and row["ending"] != "expired":
            assert row["completed"] + row["failed"] == bitmap.count(row["ended"])
        assert bitmap.width(row["written"]) <= row["total"]
        reported = sum(one["output_lines"] + one["error_lines"] for one in row["parts"])
        assert reported == bitmap.count(row["written"])
        if row["state"] in BATCH_ENDED and row["state"] != "failed":
            assert reported == row["total"]
            assert bitmap.count(row["ended"]) == row["fed"]
        assert BATCH.decode(BATCH.encode(row)) == row

    @invariant()
    def an_ended_batch_stays_ended(self) -> None:
        assert not self.over or self.row is None or self.row["state"] in BATCH_ENDED
        self.over = self.row is None or self.row["state"] in BATCH_ENDED


TestBooks = Books.TestCase


@given(
    kinds=st.lists(st.tuples(st.sampled_from(KINDS), lines, st.sets(lines)), max_size=30), later_ms=st.integers(0, 10)
)
def test_an_event_that_comes_twice_counts_once(kinds: list[tuple[Any, int, set[int]]], later_ms: int) -> None:
    row: Batch | None = initial_batch(proposed(ONE), offset=0, taken=lambda _: False)
    for kind, number, some in kinds:
        what = part(ONE, 0, 0, some) if kind == "batch_part" else validated(ONE, number)
        what["kind"] = kind
        step = batches.apply(row, what, now_ms=CREATED_MS + later_ms, retention_ms=1 << 50)
        again = batches.apply(step.batch, what, now_ms=CREATED_MS + later_ms, retention_ms=1 << 50)
        if step.reason is None:
            assert again.reason is not None
        row = again.batch
        assume(row is not None)


def test_a_batch_that_waits_for_its_files_is_due_for_nothing() -> None:
    row = initial_batch(proposed(ONE), offset=0, taken=lambda _: False)
    assert due_ms(row, retention_ms=5) == row["expires_ms"]
    assert due_ms({**row, "state": "finalizing"}, retention_ms=5) is None
    assert due_ms({**row, "state": "cancelling"}, retention_ms=5) is None
    assert due_ms({**row, "state": "failed", "failed_ms": 7}, retention_ms=5) == 12
    assert due_ms({**row, "state": "expired", "expired_ms": 8}, retention_ms=5) == 13


def test_the_list_of_pieces_is_bounded() -> None:
    row = initial_batch(proposed(ONE), offset=0, taken=lambda _: False)
    full = part(ONE, 1, 2, {0}, name="f" * 16)
    assert full["change"] is not None
    assert full["change"]["part"] is not None
    row = {**row, "state": "in_progress", "total": 50_000, "fed": 50_000, "written_to": 1, "written": b"\0" * 6_250}
    row = {**row, "ended": b"\xff" * 6_250, "parts": [{**full["change"]["part"], "end": 1 << 40}] * (MAX_PARTS - 1)}
    step = batches.apply(row, full, now_ms=CREATED_MS, retention_ms=1)
    assert step.batch is not None
    assert len(BATCH.encode(step.batch)) + MAX_PROPOSAL_BYTES < 1_000_000
    again = part(ONE, 2, 3, {1})
    assert batches.apply(step.batch, again, now_ms=CREATED_MS, retention_ms=1).reason == "too_many_parts"


def test_unexpected_events_are_dropped() -> None:
    row = initial_batch(proposed(ONE), offset=0, taken=lambda _: False)
    odd = event("batch_created", at_ms=1, task_id=ONE)
    assert batches.apply(row, odd, now_ms=1, retention_ms=1).reason == "unexpected_batch_event"
    assert batches.apply(None, odd, now_ms=1, retention_ms=1).reason == "unknown_batch"
