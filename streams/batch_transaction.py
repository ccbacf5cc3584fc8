"""Applies the events of one transaction to batches; the lines of batches are ordinary tasks.

The state record of a batch is durable before those of its tasks. So after a crash a line may be counted although its
task has no state record or an old one; its inputs are read again, and the bit in `ended` prevents a second count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import NamedTuple

from schemas.batches import Batch
from schemas.codec import BATCH
from schemas.common import Usage
from schemas.events import batch_resume_event
from schemas.ids import MODE_CODES, IdError, parse_batch
from schemas.kafka_record import AddressedRecord
from schemas.records import Event, Result, Status
from schemas.validation import Invalid
from streams.intake.decode import Submission
from streams.recovery.buffer import STOP_KINDS
from streams.state_machine import batches, tasks
from streams.state_machine.batch_rows import decode_proposal, initial_batch
from streams.state_machine.rows import StateKey, TaskRules, finished_status, is_early_cancel, new_status

LINE = f"-{MODE_CODES['batch']}-"
MAX_CANCELLED_LINES = 250
"""Maximum number of lines that one transaction ends because of stopped batches (60 ms).

Without it, many batches stopped at once could exceed the session timeout, and the restarted process would read the same
events again."""
LINE_ENDED = frozenset(("completed", "failed", "cancelled"))


class TransactionTasks(NamedTuple):
    """Access to the tasks of the same transaction."""

    row: Callable[[StateKey], Status | None]
    apply: Callable[[StateKey, tasks.Transition], None]
    add: Callable[[AddressedRecord], None]
    prefix: str
    """Prefix of all topic names."""


class BatchSource(NamedTuple):
    """What a transaction reads about batches.

    `stored` returns a state record by partition and key; `taken` tells whether the line ids of another batch with this
    (partition, queue number) use a second.
    """

    stored: Callable[[int, bytes], bytes | None] = lambda *_: None
    taken: Callable[[int, int, int], bool] = lambda *_: False
    retention_ms: int = 0


NO_BATCHES = BatchSource()
"""For the online level: batches run offline."""


def is_line(submission: Submission) -> bool:
    """Return whether a task is a batch line, or has an id that only batch lines may have."""
    return submission.task["batch_id"] is not None or LINE in submission.task_id


class BatchTransaction:
    """The changes of one transaction in batches."""

    def __init__(
        self,
        source: BatchSource,
        access: TransactionTasks,
        *,
        known: Mapping[StateKey, tuple[int, Result]],
        reasons: MutableMapping[str, int],
        rules: TaskRules,
        now_ms: int,
    ) -> None:
        self._source = source
        self._tasks = access
        self._known = known
        self._notes = reasons
        self._rules = rules
        self._now_ms = now_ms
        self._before: dict[StateKey, Batch | None] = {}
        self._cancels_left = MAX_CANCELLED_LINES
        self.rows: dict[StateKey, Batch | None] = {}

    def get(self, key: StateKey) -> Batch | None:
        """Return the current state record of a batch."""
        if key in self.rows:
            return self.rows[key]
        if key not in self._before:
            stored = self._source.stored(key[0], key[1].encode())
            self._before[key] = None if stored is None else BATCH.decode(stored)
        return self._before[key]

    def changes(self) -> list[tuple[StateKey, Batch | None, Batch | None]]:
        """Return every changed state record: key, before, after."""
        return [(key, self._before[key], row) for key, row in self.rows.items()]

    def event(self, event: Event, *, partition: int, offset: int) -> None:
        """Apply an event about a batch; one in the wrong partition is dropped and counted."""
        key = (partition, event["id"])
        try:
            if parse_batch(event["id"]).partition != partition:
                self._count("wrong_partition")
                return
        except IdError:
            self._count("no_batch_id")
            return
        batch = self.get(key)
        if event["kind"] == "batch_created":
            self._created(key, batch, event, offset)
            return
        retention_ms = self._source.retention_ms
        transition = batches.apply(batch, event, now_ms=self._now_ms, retention_ms=retention_ms)
        if transition.reason is None:
            self.rows[key] = transition.batch
        else:
            self._count(transition.reason)
        if batch is not None and event["kind"] in STOP_KINDS and batch["ending"] in ("cancelled", "expired"):
            self._end_recovered_lines(key)
        if transition.line_error is not None and transition.batch is not None:
            self._cancel_lines(key, transition.batch, transition.line_error)

    def line(self, key: StateKey, submission: Submission, *, offset: int) -> bool:
        """Apply a line to its batch; returns whether to apply it as a task, too."""
        task, batch_key = submission.task, (key[0], submission.task["batch_id"] or "")
        row, result = self._tasks.row(key), self._known.get(key)
        unknown = row is None or is_early_cancel(row)
        transition = batches.line_submitted(
            self.get(batch_key), task, task_id=key[1], unknown=unknown, has_result=result is not None
        )
        if transition.reason is not None:
            self._count(transition.reason)
            return False
        if transition.batch is not self.get(batch_key):
            self.rows[batch_key] = transition.batch
        if not unknown or result is None:
            return True
        # It ended before the crash: the state record is created from the result, without another work record.
        initial = new_status(task, task_id=key[1], offset=offset, created_ms=submission.created_ms, rules=self._rules)
        over = finished_status(initial, result[1], offset=result[0])
        self._count("result_recovered")
        self._tasks.apply(key, tasks.Transition(over))
        self.line_stored(key[0], over)
        return False

    def count_line(self, key: StateKey, row: Status, usage: Usage | None) -> None:
        """Count a line that has ended."""
        batch_key = (key[0], row["batch_id"] or "")
        batch = self.get(batch_key) if row["state"] in LINE_ENDED else None
        if batch is None:
            return
        if (known := self._known.get(key)) is not None:
            usage = known[1]["usage"]
        after = batches.line_ended(
            batch,
            row["batch_line"],
            row["state"],
            usage,
            now_ms=self._now_ms,
            with_batch=row["error_code"] in batches.MESSAGES,
        )
        if after is not batch:
            self.rows[batch_key] = after

    def line_stored(self, partition: int, row: Status) -> None:
        """Set the newest result offset of a batch if the task is one of its lines."""
        batch_key, offset = (partition, row["batch_id"] or ""), row["result_offset"]
        batch = self.get(batch_key) if row["batch_id"] is not None else None
        if batch is None or offset is None:
            return
        before = self._before[batch_key]
        first: int | None = None
        if before is None or before["written_to"] is None:
            first = min(
                offset, batch["written_to"] if batch["written_to"] is not None else self._oldest_result(batch_key)
            )
        self.rows[batch_key] = batches.result_written(batch, offset, first=first)

    def _created(self, key: StateKey, batch: Batch | None, event: Event, offset: int) -> None:
        if batch is not None and batch["source_offset"] == offset:
            self._count("reread")
            return
        if batch is not None:
            self._count("duplicate_batch_id")
            return
        try:
            proposed = decode_proposal(event, partition=key[0])
        except Invalid:
            self._count("invalid_batch")  # `read_event` rejects such an event before
            return
        number = proposed["queue_number"]
        in_transaction = {
            row["stamp_s"]
            for (partition, _), row in self.rows.items()
            if row is not None and partition == key[0] and row["queue_number"] == number
        }
        taken = self._source.taken
        self.rows[key] = initial_batch(
            proposed, offset=offset, taken=lambda stamp_s: stamp_s in in_transaction or taken(key[0], number, stamp_s)
        )

    def _cancel_lines(self, key: StateKey, batch: Batch, code: str) -> None:
        """Cancel the active lines up to the limit of a transaction; an event continues with the rest."""
        lines = batches.unfinished_lines(batch)
        for line in lines[: self._cancels_left]:
            task_id = batches.line_task_id(batch, line)
            if self._tasks.row((key[0], task_id)) is not None:
                self._cancel_line(key[0], task_id, code)
                continue
            self._count("line_without_row")
            now = self.get(key) or batch
            self.rows[key] = batches.line_ended(now, line, "cancelled", None, now_ms=self._now_ms, with_batch=True)
        if len(lines) > self._cancels_left:
            self._tasks.add(batch_resume_event(self._tasks.prefix, batch, at_ms=self._now_ms))
        self._cancels_left = max(0, self._cancels_left - len(lines))

    def _end_recovered_lines(self, key: StateKey) -> None:
        """End lines that are active after a crash although their batch was stopped.

        Their results are in the log, because these were durable before the state record of the batch.
        """
        for (partition, task_id), (_, result) in self._known.items():
            if (partition, result["batch_id"]) == key:
                self._cancel_line(partition, task_id, result["error_code"] or "")

    def _cancel_line(self, partition: int, task_id: str, code: str) -> None:
        key = (partition, task_id)
        row = self._tasks.row(key)
        if row is None:
            return
        message = batches.MESSAGES.get(code, "")
        self._tasks.apply(key, tasks.cancelled_with_batch(row, code=code, message=message, now_ms=self._now_ms))

    def _oldest_result(self, batch_key: StateKey) -> int:
        """Return the lowest offset of the known results of a batch; beyond all offsets if there is none."""
        found = (offset for key, (offset, one) in self._known.items() if (key[0], one["batch_id"]) == batch_key)
        return min(found, default=1 << 62)

    def _count(self, reason: str) -> None:
        self._notes[reason] = self._notes.get(reason, 0) + 1
