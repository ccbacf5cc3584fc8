"""A batch whose scheduler dies again and again, at any record that it writes: rows and results agree in the end."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from schemas import bitmap
from schemas.events import event
from schemas.records import Event
from streams import batch_transaction
from streams.input_offsets import InputOffsets, InputPartition
from streams.intake.decode import Submission
from streams.recovery.buffer import ATTEMPT_KINDS, PendingEvent, RecoveryBuffer
from tests.support.memory_batch_log import (
    CREATED_MS,
    HOME,
    WINDOW_MS,
    BatchLog,
    Cut,
    batch_id,
    created,
    line,
    validated,
)
from tests.support.records import claimed, failure, finished, outcome

ONE = batch_id()
TASKS, EVENTS = ("tasks", HOME), ("events", HOME)
USAGE = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
LINES = 5


class Turn(NamedTuple):
    """One batch of inputs: how many of each topic, which first, and after how many records the process dies."""

    tasks: int
    events: int
    events_first: bool
    cut_after: int | None
    late: bool = False


turns = st.builds(
    Turn, st.integers(0, 4), st.integers(0, 4), st.booleans(), st.none() | st.integers(0, 16), st.booleans()
)
happenings = st.sampled_from(["good", "bad", "claimed", "cancelled", "batch_cancel", "batch_due"])


class Source(NamedTuple):
    """Where an input lies."""

    place: InputPartition
    offset: int
    what: Submission | Event


class Process:
    """The scheduler's loop over both topics: what it has read, holds back and may commit."""

    def __init__(self, happens: list[tuple[str, int]]) -> None:
        self.log = BatchLog()
        self.inputs: dict[InputPartition, list[Submission | Event]] = {TASKS: [], EVENTS: []}
        self.happens = happens
        self.late = False
        self.progress, self.replay = InputOffsets(), RecoveryBuffer()
        self.progress.reset({TASKS: 0, EVENTS: 0})
        self.read: dict[InputPartition, int] = {TASKS: 0, EVENTS: 0}

    async def begin(self) -> None:
        """Create the batch, and let its feeder write some lines twice."""
        self.inputs[EVENTS] += [created(ONE), validated(ONE, LINES)]
        await self.turn(Turn(0, 2, True, None))
        batch = self.log.batch(ONE)
        self.inputs[TASKS] += [line(batch, number) for number in (0, 1, 0, 1, 2, 3, 2, 4)]

    def happen(self) -> None:
        """Write the next events of workers and users; workers report only on work that they received."""
        batch, worked = self.log.batch(ONE), set(self.log.worked)
        for one in list(self.happens):
            kind, number = one
            task_id = line(batch, number).task_id
            if kind.startswith("batch_"):
                self.inputs[EVENTS].append(event(kind, at_ms=1, task_id=ONE, owner=None))  # type: ignore[arg-type]
            elif task_id not in worked:
                continue
            elif kind == "cancelled":
                self.inputs[EVENTS].append(event("cancel", at_ms=1, task_id=task_id))
            elif kind == "claimed":
                self.inputs[EVENTS].append(claimed(task_id))
            else:
                result: Any = outcome(usage=USAGE) if kind == "good" else failure(retriable=False)
                self.inputs[EVENTS].append(finished(task_id, result=result))
            self.happens.remove(one)
            return

    async def turn(self, turn: Turn) -> None:
        """Fold some inputs; a cut is followed by a restart."""
        takes = [self.take(TASKS, turn.tasks), self.take(EVENTS, turn.events)]
        self.log.cut_after = turn.cut_after
        self.late = self.late or turn.late
        now_ms = CREATED_MS + (WINDOW_MS if self.late else 1_000)
        try:
            await self.process(
                [one for group in (reversed(takes) if turn.events_first else takes) for one in group], now_ms
            )
        except Cut:
            await self.restart()
        self.log.cut_after = None
        self.inputs[EVENTS] += self.log.own_events()

    def take(self, place: InputPartition, count: int) -> list[Source]:
        at = self.read[place]
        found = self.inputs[place][at : at + count]
        self.read[place] = at + len(found)
        return [Source(place, at + number, one) for number, one in enumerate(found)]

    async def process(self, sources: list[Source], now_ms: int) -> None:
        processed: list[Source] = []
        for source in sources:
            what = source.what
            if isinstance(what, Submission):
                processed += [source, *(held.source for held in self.replay.pop_task(HOME, what.task_id))]
            elif self.replay.must_wait(HOME, what) and not self.knows(what["id"], processed):
                self.replay.hold(HOME, PendingEvent(source, what))
            else:
                processed.append(source)
        await self.log.process(
            *((one.offset, one.what) for one in processed),
            now_ms=now_ms,
            was_attempted=self.replay.was_attempted,
        )
        for one in processed:
            self.progress.done(one.place, one.offset)
        waited = self.replay.pop_unmatched(HOME, self.progress.committable(TASKS) or 0)
        if waited:
            await self.process([held.source for held in waited], now_ms)

    def knows(self, task_id: str, processed: list[Source]) -> bool:
        here = any(isinstance(one.what, Submission) and one.what.task_id == task_id for one in processed)
        return here or (HOME, task_id) in self.log.rows.values

    async def restart(self) -> None:
        """Begin at the committed offsets, as recovery does."""
        await self.log.restart()
        starts = {place: self.progress.committable(place) or 0 for place in self.inputs}
        self.progress.reset(starts)
        self.read = dict(starts)
        was_attempted = {
            (HOME, one["id"], one["attempt"])
            for one in self.inputs[EVENTS][starts[EVENTS] :]
            if not isinstance(one, Submission) and one["kind"] in ATTEMPT_KINDS
        }
        end = len(self.inputs[TASKS])
        self.replay.begin({HOME: end} if starts[TASKS] < end else {}, was_attempted)

    def check(self) -> None:
        """Compare batch, rows and results."""
        log, batch = self.log, self.log.batch(ONE)
        numbers = [one["batch_line"] for one in log.results]
        assert len(set(numbers)) == len(numbers), "a second result"
        assert bitmap.of(numbers) == batch["ended"].rstrip(b"\0")
        outcomes = [(one["state"], one["error_code"]) for one in log.results]
        assert batch["completed"] == sum(state == "completed" for state, _ in outcomes)
        cancelled_with_batch = ("batch_cancelled", "batch_expired")
        failed = sum(state == "failed" for state, _ in outcomes)
        single = sum(state == "cancelled" and code not in cancelled_with_batch for state, code in outcomes)
        # A line that a user cancels while its batch is being stopped counts as stopped.
        assert failed + (0 if batch["ending"] in ("cancelled", "expired") else single) <= batch["failed"]
        assert batch["failed"] <= failed + single
        assert batch["usage"]["total_tokens"] == 5 * batch["completed"]
        assert batch["written_to"] == (0 if numbers else None)
        assert batch["last_result"] == (len(numbers) - 1 if numbers else None)
        for number in range(LINES):
            row = log.line(batch, number)
            assert (row is not None) == (number < batch["fed"])
            if row is not None:
                assert (row["state"] in ("completed", "failed", "cancelled")) == (number in numbers)
                assert row["result_offset"] == (numbers.index(number) if number in numbers else None)
        if batch["state"] in ("cancelling", "finalizing"):
            assert bitmap.count(batch["ended"]) == batch["fed"]


async def live(happens: list[tuple[str, int]], plan: list[Turn]) -> None:
    process = Process(list(happens))
    with patch.object(batch_transaction, "MAX_CANCELLED_LINES", 2):
        await process.begin()
        for turn in plan:
            process.happen()
            await process.turn(turn)
        for _ in range(20):
            process.happen()
            await process.turn(Turn(10, 10, False, None))
    process.check()


@given(
    happens=st.lists(st.tuples(happenings, st.integers(0, LINES - 1)), max_size=8), plan=st.lists(turns, max_size=12)
)
def test_rows_and_results_agree_however_often_the_scheduler_dies(
    happens: list[tuple[str, int]], plan: list[Turn]
) -> None:
    asyncio.run(live(happens, plan))
