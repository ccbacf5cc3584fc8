"""The batches that one fold touches: their events, and what becomes of their lines, which are ordinary tasks.

A batch's row is durable before the rows of its tasks. So a crash can leave a line counted whose task has no row, or an
old one; its record and its events are read again then, and the bit in `ended` says that the counting is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import NamedTuple

from schemas.batches import Batch
from schemas.codec import BATCH
from schemas.common import Usage
from schemas.events import batch_resume_event
from schemas.ids import MODE_LETTERS, IdError, parse_batch
from schemas.kafka_record import AddressedRecord
from schemas.records import Event, Result, Status
from schemas.validation import Invalid
from streams.intake.decode import Submission
from streams.recovery.buffer import STOP_KINDS
from streams.state_machine import batches
from streams.state_machine import tasks as machine
from streams.state_machine.batch_rows import decode_proposal, initial_batch
from streams.state_machine.rows import TaskRules, finished_status, is_early_cancel, new_status

StateKey = tuple[int, str]
"""Partition and id."""
LINE = f"-{MODE_LETTERS['batch']}-"
STOP_LINES = 250
"""Lines that a fold ends because their batches were stopped: 60 ms. Many batches may be stopped in one moment, and a
fold that took longer than the session would end the process, which would then read the same events again."""
LINE_OVER = frozenset(("completed", "failed", "cancelled"))


class TransactionTasks(NamedTuple):
    """The tasks of the same fold: their rows as they are by now, and how to take over what follows."""

    row: Callable[[StateKey], Status | None]
    take: Callable[[StateKey, machine.Transition], None]
    add: Callable[[AddressedRecord], None]
    """Write a record with the transaction."""
    prefix: str


class BatchSource(NamedTuple):
    """What the fold of batches reads: the stored rows, and which seconds are taken by (partition, queue number)."""

    stored: Callable[[int, bytes], bytes | None] = lambda *_: None
    taken: Callable[[int, int, int], bool] = lambda *_: False
    retention_ms: int = 0


NO_BATCHES = BatchSource()
"""Of the online lane: batches are offline."""


def is_line(submission: Submission) -> bool:
    """Tell whether a task is a line of a batch, or calls itself as only a line may."""
    return submission.task["batch_id"] is not None or LINE in submission.task_id


class BatchTransaction:
    """Collect what a fold changes in batches."""

    def __init__(
        self,
        source: BatchSource,
        tasks: TransactionTasks,
        *,
        known: Mapping[StateKey, tuple[int, Result]],
        notes: MutableMapping[str, int],
        rules: TaskRules,
        now_ms: int,
    ) -> None:
        self._source = source
        self._tasks = tasks
        self._known = known
        self._notes = notes
        self._rules = rules
        self._now_ms = now_ms
        self._before: dict[StateKey, Batch | None] = {}
        self._stops_left = STOP_LINES
        self.rows: dict[StateKey, Batch | None] = {}

    def get(self, home: StateKey) -> Batch | None:
        """Return a batch as it is by now."""
        if home in self.rows:
            return self.rows[home]
        if home not in self._before:
            stored = self._source.stored(home[0], home[1].encode())
            self._before[home] = None if stored is None else BATCH.decode(stored)
        return self._before[home]

    def changes(self) -> list[tuple[StateKey, Batch | None, Batch | None]]:
        """Return every changed row: home, before, after."""
        return [(home, self._before[home], row) for home, row in self.rows.items()]

    def event(self, event: Event, *, partition: int, offset: int) -> None:
        """Fold an event about a batch; one that lies in the wrong partition is dropped and counted."""
        home = (partition, event["id"])
        try:
            if parse_batch(event["id"]).partition != partition:
                self._note("wrong_partition")
                return
        except IdError:
            self._note("no_batch_id")
            return
        batch = self.get(home)
        if event["kind"] == "batch_created":
            self._created(home, batch, event, offset)
            return
        retention_ms = self._source.retention_ms
        step = batches.apply(batch, event, now_ms=self._now_ms, retention_ms=retention_ms)
        if step.note is None:
            self.rows[home] = step.batch
        else:
            self._note(step.note)
        if batch is not None and event["kind"] in STOP_KINDS and batch["ending"] in ("cancelled", "expired"):
            self._mend(home)
        if step.withdraw is not None and step.batch is not None:
            self._withdraw(home, step.batch, step.withdraw)

    def line(self, home: StateKey, submission: Submission, *, offset: int) -> bool:
        """Fold a line as far as its batch is concerned; tells whether it goes on as any task does."""
        task, place = submission.task, (home[0], submission.task["batch_id"] or "")
        row, result = self._tasks.row(home), self._known.get(home)
        unknown = row is None or is_early_cancel(row)
        step = batches.line_read(self.get(place), task, task_id=home[1], unknown=unknown, has_result=result is not None)
        if step.note is not None:
            self._note(step.note)
            return False
        if step.batch is not self.get(place):
            self.rows[place] = step.batch
        if not unknown or result is None:
            return True
        # It has ended before the crash: its row is made from its result, and nobody is given work again.
        begun = new_status(task, task_id=home[1], offset=offset, created_ms=submission.created_ms, rules=self._rules)
        over = finished_status(begun, result[1], offset=result[0])
        self._note("result_adopted")
        self._tasks.take(home, machine.Transition(over))
        self.placed(home[0], over)
        return False

    def changed(self, home: StateKey, row: Status, usage: Usage | None) -> None:
        """Count a line that has ended."""
        place = (home[0], row["batch_id"] or "")
        batch = self.get(place) if row["state"] in LINE_OVER else None
        if batch is None:
            return
        if (known := self._known.get(home)) is not None:
            usage = known[1]["usage"]
        after = batches.line_ended(
            batch,
            row["batch_line"],
            row["state"],
            usage,
            now_ms=self._now_ms,
            withdrawn=row["error_code"] in batches.MESSAGES,
        )
        if after is not batch:
            self.rows[place] = after

    def placed(self, partition: int, row: Status) -> None:
        """Note where the result of a task lies, when the task is a line."""
        place, offset = (partition, row["batch_id"] or ""), row["result_offset"]
        batch = self.get(place) if row["batch_id"] is not None else None
        if batch is None or offset is None:
            return
        before = self._before[place]
        first: int | None = None
        if before is None or before["written_to"] is None:
            first = min(offset, batch["written_to"] if batch["written_to"] is not None else self._first_known(place))
        self.rows[place] = batches.result_written(batch, offset, first=first)

    def _created(self, home: StateKey, batch: Batch | None, event: Event, offset: int) -> None:
        if batch is not None and batch["source_offset"] == offset:
            self._note("reread")
            return
        if batch is not None:
            self._note("duplicate_batch_id")
            return
        try:
            proposed = decode_proposal(event, partition=home[0])
        except Invalid:
            self._note("misfit_batch")  # `read_event` has made a dead letter of such an event
            return
        number = proposed["queue_number"]
        here = {
            row["stamp_s"]
            for (partition, _), row in self.rows.items()
            if row is not None and partition == home[0] and row["queue_number"] == number
        }
        taken = self._source.taken
        self.rows[home] = initial_batch(
            proposed, offset=offset, taken=lambda stamp_s: stamp_s in here or taken(home[0], number, stamp_s)
        )

    def _withdraw(self, home: StateKey, batch: Batch, code: str) -> None:
        """End a slice of the lines that run; when there are more, an event of our own goes on with them."""
        lines = batches.unended(batch)
        for line in lines[: self._stops_left]:
            task_id = batches.line_task_id(batch, line)
            if self._tasks.row((home[0], task_id)) is not None:
                self._end(home[0], task_id, code)
                continue
            self._note("line_without_row")
            now = self.get(home) or batch
            self.rows[home] = batches.line_ended(now, line, "cancelled", None, now_ms=self._now_ms, withdrawn=True)
        if len(lines) > self._stops_left:
            self._tasks.add(batch_resume_event(self._tasks.prefix, batch, at_ms=self._now_ms))
        self._stops_left = max(0, self._stops_left - len(lines))

    def _mend(self, home: StateKey) -> None:
        """End the lines once more that a crash has left running although their batch was stopped.

        Their results are in the log, for they were durable before the batch's row.
        """
        for (partition, task_id), (_, result) in self._known.items():
            if (partition, result["batch_id"]) == home:
                self._end(partition, task_id, result["error_code"] or "")

    def _end(self, partition: int, task_id: str, code: str) -> None:
        home = (partition, task_id)
        row = self._tasks.row(home)
        if row is None:
            return
        message = batches.MESSAGES.get(code, "")
        self._tasks.take(home, machine.withdrawn(row, code=code, message=message, now_ms=self._now_ms))

    def _first_known(self, place: StateKey) -> int:
        """Return where the first result lies that a crash has left of a batch; far beyond all when there is none."""
        found = (offset for home, (offset, one) in self._known.items() if (home[0], one["batch_id"]) == place)
        return min(found, default=1 << 62)

    def _note(self, note: str) -> None:
        self._notes[note] = self._notes.get(note, 0) + 1
