"""Fold one batch of records into rows and outputs: pure but for the row getter it is given."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from schemas import topics
from schemas.codec import RESULT, STATUS
from schemas.ids import IdError, parse
from schemas.kafka_record import AddressedRecord, Record
from schemas.partitioning import stable_hash
from schemas.records import Event, Outcome, Result, Status
from streams import outputs
from streams.batch_transaction import NO_BATCHES, BatchSource, BatchTransaction, TransactionTasks, is_line
from streams.intake import deduplication
from streams.intake.decode import Submission
from streams.recovery import usage_backfill
from streams.state_machine import tasks as machine
from streams.state_machine.batches import KINDS as BATCH_KINDS
from streams.state_machine.rows import TaskRules, is_early_cancel, new_status
from streams.state_machine.tasks import CancelEffect, DeadLetterEffect, Transition, WorkEffect

StateKey = tuple[int, str]
"""Partition and task id."""


class PendingResult(NamedTuple):
    """A result that will be written, or is there already when `offset` is known."""

    home: StateKey
    record: Record | None
    offset: int | None


class Transaction:
    """Collect what a batch changes. Nothing is visible outside before `Scheduler` has made it durable."""

    def __init__(
        self,
        *,
        level: int,
        rules: TaskRules,
        now_ms: int,
        prefix: str,
        row: Callable[[int, bytes], bytes | None],
        known_results: Mapping[StateKey, tuple[int, Result]],
        work_partitions: Callable[[str], int],
        holders: Callable[[int, str], set[str]],
        spoken: Callable[[int, str, int], bool] = lambda *_: False,
        batches: BatchSource = NO_BATCHES,
    ) -> None:
        """`spoken` tells which attempts a worker has already: they are not handed out again."""
        self._level = level
        self._rules = rules
        self._now_ms = now_ms
        self.prefix = prefix
        self._stored = row
        self._known_results = known_results
        self._work_partitions = work_partitions
        self._holders = holders
        self._spoken = spoken
        self._before: dict[StateKey, Status | None] = {}
        self._traceparents: dict[str, bytes] = {}
        self.rows: dict[StateKey, Status | None] = {}
        self.results: dict[StateKey, PendingResult] = {}
        self.records: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.usage: dict[tuple[str, int], list[Record]] = defaultdict(list)
        """Written after the results, with the rows: so whatever is accounted for has its result."""
        self.dead: list[tuple[StateKey, str]] = []
        self.notes: Counter[str] = Counter()
        tasks = TransactionTasks(self._row, self._take, self.add, prefix)
        self.batches = BatchTransaction(
            batches, tasks, known=known_results, notes=self.notes, rules=rules, now_ms=now_ms
        )

    def submission(self, submission: Submission, *, partition: int, offset: int) -> None:
        """Fold a new task."""
        home = (partition, submission.task_id)
        if submission.traceparent:
            self._traceparents[submission.task_id] = submission.traceparent
        stored = self._row(home)
        if is_line(submission):
            if not self.batches.line(home, submission, offset=offset):
                return
        elif (stored is None or is_early_cancel(stored)) and self._is_duplicate(home, submission, offset):
            return
        self._take(
            home,
            machine.submitted(
                stored,
                submission.task,
                task_id=submission.task_id,
                offset=offset,
                created_ms=submission.created_ms,
                now_ms=self._now_ms,
                rules=self._rules,
            ),
        )

    def event(self, event: Event, *, partition: int, offset: int = -1, traceparent: bytes | None = None) -> None:
        """Fold an event about one task or batch; one that lies in the wrong partition is dropped and counted."""
        if event["kind"] in BATCH_KINDS:
            self.batches.event(event, partition=partition, offset=offset)
            return
        if event["kind"] == "expire" and event["id"].startswith(deduplication.PREFIX):
            place = (partition, event["id"])
            self._take(place, machine.apply(self._row(place), event, now_ms=self._now_ms, rules=self._rules))
            return
        try:
            identity = parse(event["id"])
        except IdError:
            self.notes["no_task_id"] += 1
            return
        if identity.partition != partition:
            self.notes["wrong_partition"] += 1
            return
        home = (partition, str(identity))
        if traceparent:
            self._traceparents[home[1]] = traceparent
        self._take(
            home, machine.apply(self._row(home), event, now_ms=self._now_ms, rules=self._rules), event["outcome"]
        )

    def worker_gone(self, worker: str, *, partition: int, lost: bool) -> None:
        """Give back everything that a worker holds in a partition: lost, or after its goodbye."""
        held = self._holders(partition, worker)
        held |= {home[1] for home, row in self.rows.items() if home[0] == partition and row and row["worker"] == worker}
        for task_id in sorted(held):
            home = (partition, task_id)
            row = self._row(home)
            if row is None:
                continue
            step = machine.worker_lost(row, worker=worker, lost=lost, now_ms=self._now_ms, rules=self._rules)
            self._take(home, step)

    def knows(self, partition: int, task_id: str) -> bool:
        """Tell whether a task has a row."""
        row = self._row((partition, task_id))
        return row is not None and not is_early_cancel(row)

    def taken(self, partition: int, task_id: str, offset: int) -> bool:
        """Tell whether an id belongs to another record than that of this position."""
        row = self._row((partition, task_id))
        return row is not None and not is_early_cancel(row) and row["source_offset"] != offset

    def changes(self) -> list[tuple[StateKey, Status | None, Status | None]]:
        """Return every changed row: home, before, after."""
        return [(home, self._before[home], row) for home, row in self.rows.items()]

    def _is_duplicate(self, home: StateKey, submission: Submission, offset: int) -> bool:
        """Give a twin its row, or remember the key of a first task; the key's row is written before the task's own."""
        task, created_ms = submission.task, submission.created_ms
        name = deduplication.key_id(task)
        if name is None:
            return False
        place, content = (home[0], name), deduplication.digest(task)
        key = self._row(place)
        row = new_status(task, task_id=submission.task_id, offset=offset, created_ms=created_ms, rules=self._rules)
        if key is not None and deduplication.is_reserved(key, home[1], created_ms=created_ms, now_ms=self._now_ms):
            twin = deduplication.duplicate_row(row, key, content=content, now_ms=self._now_ms)
            self.rows[home] = twin
            if twin["error_code"] is None:
                self.notes["twin"] += 1
            else:
                self.notes["twin_refused"] += 1
            return True
        window_ms = self._rules.idempotency_ms
        self.rows[place] = deduplication.reservation_row(
            row, name=name, content=content, now_ms=self._now_ms, window_ms=window_ms
        )
        return False

    def _row(self, home: StateKey) -> Status | None:
        if home in self.rows:
            return self.rows[home]
        if home not in self._before:
            stored = self._stored(home[0], home[1].encode())
            self._before[home] = None if stored is None else STATUS.decode(stored)
        return self._before[home]

    def _take(self, home: StateKey, step: Transition, outcome: Outcome | None = None) -> None:
        row = step.row
        if step.note is not None:
            self.notes[step.note] += 1
            if row is not None and row["batch_id"] is not None:
                self.batches.changed(home, row, None)
            return
        if row is not None and row["traceparent"] is None and (parent := self._traceparents.get(row["id"])):
            row = {**row, "traceparent": parent.decode()}
        self.rows[home] = row
        if row is None:
            return
        self._follow(home, row, step, outcome)
        if row["batch_id"] is not None:
            self.batches.changed(home, self.rows[home] or row, outcome["usage"] if outcome else None)

    def _follow(self, home: StateKey, row: Status, step: Transition, outcome: Outcome | None) -> None:
        for effect in step.effects:
            match effect:
                case WorkEffect():
                    if self._spoken(home[0], row["id"], row["attempt"]):
                        self.notes["work_known"] += 1
                    else:
                        self._work(row, effect)
                case CancelEffect(reason):
                    control = outputs.stop_record(row, reason, now_ms=self._now_ms)
                    self.add(AddressedRecord(self.prefix + topics.CONTROLS, 0, control))
                case DeadLetterEffect(reason):
                    self.dead.append((home, reason))
                case machine.ResultEffect():
                    self._result(home, row, effect.outcome or outcome)

    def _work(self, row: Status, work: WorkEffect) -> None:
        partitions = self._work_partitions(row["queue"])
        if not partitions:
            return  # its workers find it by its row
        partition = stable_hash(row["id"]) % partitions
        record = outputs.work_record(row, work, now_ms=self._now_ms, traceparent=self._parent(row))
        self.add(AddressedRecord(self.prefix + topics.work(row["queue"], self._level), partition, record))

    def _result(self, home: StateKey, row: Status, outcome: Outcome | None) -> None:
        """Write the result, unless a crash came between an earlier one and its row: then the row follows the log."""
        if known := self._known_results.get(home):
            offset, result = known
            self.rows[home] = {
                **row,
                "state": result["state"],
                "finished_ms": result["finished_ms"],
                "status_code": result["status_code"],
                "error_code": result["error_code"],
                "error_message": result["error_message"],
            }
            self.results[home] = PendingResult(home, None, offset)
            self.notes["result_adopted"] += 1
            return
        result = outputs.result_of(row, outcome, now_ms=self._now_ms, prices=self._rules.prices)
        record = outputs.result_record(result, traceparent=self._parent(row))
        self.results[home] = PendingResult(home, record, None)
        self.usage[self.prefix + topics.USAGE, home[0]].append(usage_backfill.usage_record(result))

    def _parent(self, row: Status) -> bytes | None:
        """Return the trace context of what led here, or else that of the task."""
        of_task = row["traceparent"]
        return self._traceparents.get(row["id"]) or (of_task.encode() if of_task is not None else None)

    def add(self, item: AddressedRecord) -> None:
        """Write a record with the batch, before its rows."""
        self.records[item.topic, item.partition].append(item.record)


def result_of(record: Any) -> tuple[StateKey, tuple[int, Result]]:
    """Index a record of results.LEVEL by its task, without the body."""
    result = RESULT.decode(record.value or b"")
    result["body"] = None
    return (record.partition, result["id"]), (record.offset, result)
