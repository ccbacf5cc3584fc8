"""Applies the inputs of one batch to state records and collects the outputs. Pure, except for the store it reads."""

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
from streams.state_machine import tasks
from streams.state_machine.batches import KINDS as BATCH_KINDS
from streams.state_machine.rows import StateKey, TaskRules, is_early_cancel, new_status
from streams.state_machine.tasks import CancelEffect, DeadLetterEffect, ResultEffect, Transition, WorkEffect


class PendingResult(NamedTuple):
    """A result to write; with `offset`, one that is already in the log."""

    key: StateKey
    record: Record | None
    offset: int | None


class Transaction:
    """The changes of one batch; nothing is visible to others before `Committer` writes them."""

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
        was_attempted: Callable[[int, str, int], bool] = lambda *_: False,
        batches: BatchSource = NO_BATCHES,
    ) -> None:
        """Start a transaction.

        Args:
            row: stored state record by partition and key.
            known_results: results in the log whose state records may be missing after a crash.
            work_partitions: partitions of a queue's work topic; 0 if its tasks get no work records.
            holders: ids of the tasks that a worker holds, by partition and worker.
            was_attempted: whether a worker already has an attempt, so that it gets no second work record.
        """
        self._level = level
        self._rules = rules
        self._now_ms = now_ms
        self.prefix = prefix
        self._stored = row
        self._known_results = known_results
        self._work_partitions = work_partitions
        self._holders = holders
        self._was_attempted = was_attempted
        self._before: dict[StateKey, Status | None] = {}
        self._traceparents: dict[str, bytes] = {}
        self.rows: dict[StateKey, Status | None] = {}
        self.results: dict[StateKey, PendingResult] = {}
        self.records: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.usage: dict[tuple[str, int], list[Record]] = defaultdict(list)
        """Written with the state records, after the results, so that every usage record has a result."""
        self.dead_letters: list[tuple[StateKey, str]] = []
        self.reasons: Counter[str] = Counter()
        access = TransactionTasks(self._row, self._apply, self.add, prefix)
        self.batches = BatchTransaction(
            batches, access, known=known_results, reasons=self.reasons, rules=rules, now_ms=now_ms
        )

    def submission(self, submission: Submission, *, partition: int, offset: int) -> None:
        """Apply a new task."""
        key = (partition, submission.task_id)
        if submission.traceparent:
            self._traceparents[submission.task_id] = submission.traceparent
        stored = self._row(key)
        if is_line(submission):
            if not self.batches.line(key, submission, offset=offset):
                return
        elif (stored is None or is_early_cancel(stored)) and self._is_duplicate(key, submission, offset):
            return
        self._apply(
            key,
            tasks.submitted(
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
        """Apply an event about one task or batch; one in the wrong partition is dropped and counted."""
        if event["kind"] in BATCH_KINDS:
            self.batches.event(event, partition=partition, offset=offset)
            return
        if event["kind"] == "expire" and event["id"].startswith(deduplication.PREFIX):
            reservation_key = (partition, event["id"])
            self._apply(
                reservation_key,
                tasks.apply(self._row(reservation_key), event, now_ms=self._now_ms, rules=self._rules),
            )
            return
        try:
            identity = parse(event["id"])
        except IdError:
            self.reasons["no_task_id"] += 1
            return
        if identity.partition != partition:
            self.reasons["wrong_partition"] += 1
            return
        key = (partition, str(identity))
        if traceparent:
            self._traceparents[key[1]] = traceparent
        self._apply(key, tasks.apply(self._row(key), event, now_ms=self._now_ms, rules=self._rules), event["outcome"])

    def worker_lost(self, worker: str, *, partition: int, lost: bool) -> None:
        """Requeue all tasks that a worker holds in a partition: it was lost, or it stopped (`lost` False)."""
        held = self._holders(partition, worker)
        held |= {key[1] for key, row in self.rows.items() if key[0] == partition and row and row["worker"] == worker}
        for task_id in sorted(held):
            key = (partition, task_id)
            row = self._row(key)
            if row is None:
                continue
            transition = tasks.worker_lost(row, worker=worker, lost=lost, now_ms=self._now_ms, rules=self._rules)
            self._apply(key, transition)

    def has_task(self, partition: int, task_id: str) -> bool:
        """Return whether a task has a state record."""
        row = self._row((partition, task_id))
        return row is not None and not is_early_cancel(row)

    def id_in_use(self, partition: int, task_id: str, offset: int) -> bool:
        """Return whether an id belongs to a record at another offset."""
        row = self._row((partition, task_id))
        return row is not None and not is_early_cancel(row) and row["source_offset"] != offset

    def changes(self) -> list[tuple[StateKey, Status | None, Status | None]]:
        """Return every changed state record: key, before, after."""
        return [(key, self._before[key], row) for key, row in self.rows.items()]

    def _is_duplicate(self, key: StateKey, submission: Submission, offset: int) -> bool:
        """Add the state record of a duplicate, or the reservation of a new key, which is written before its task."""
        task, created_ms = submission.task, submission.created_ms
        name = deduplication.idempotency_row_key(task)
        if name is None:
            return False
        reservation_key, content = (key[0], name), deduplication.digest(task)
        reservation = self._row(reservation_key)
        row = new_status(task, task_id=submission.task_id, offset=offset, created_ms=created_ms, rules=self._rules)
        if reservation is not None and deduplication.is_reserved(
            reservation, key[1], created_ms=created_ms, now_ms=self._now_ms
        ):
            duplicate = deduplication.duplicate_row(row, reservation, content=content, now_ms=self._now_ms)
            self.rows[key] = duplicate
            if duplicate["error_code"] is None:
                self.reasons["duplicate"] += 1
            else:
                self.reasons["duplicate_conflict"] += 1
            return True
        window_ms = self._rules.idempotency_ms
        self.rows[reservation_key] = deduplication.reservation_row(
            row, name=name, content=content, now_ms=self._now_ms, window_ms=window_ms
        )
        return False

    def _row(self, key: StateKey) -> Status | None:
        if key in self.rows:
            return self.rows[key]
        if key not in self._before:
            stored = self._stored(key[0], key[1].encode())
            self._before[key] = None if stored is None else STATUS.decode(stored)
        return self._before[key]

    def _apply(self, key: StateKey, transition: Transition, outcome: Outcome | None = None) -> None:
        row = transition.row
        if transition.reason is not None:
            self.reasons[transition.reason] += 1
            if row is not None and row["batch_id"] is not None:
                self.batches.count_line(key, row, None)
            return
        if row is not None and row["traceparent"] is None and (parent := self._traceparents.get(row["id"])):
            row = {**row, "traceparent": parent.decode()}
        self.rows[key] = row
        if row is None:
            return
        self._apply_effects(key, row, transition, outcome)
        if row["batch_id"] is not None:
            self.batches.count_line(key, self.rows[key] or row, outcome["usage"] if outcome else None)

    def _apply_effects(self, key: StateKey, row: Status, transition: Transition, outcome: Outcome | None) -> None:
        for effect in transition.effects:
            match effect:
                case WorkEffect():
                    if self._was_attempted(key[0], row["id"], row["attempt"]):
                        self.reasons["attempt_already_running"] += 1
                    else:
                        self._work(row, effect)
                case CancelEffect(reason):
                    control = outputs.cancel_record(row, reason, now_ms=self._now_ms)
                    self.add(AddressedRecord(self.prefix + topics.CONTROLS, 0, control))
                case DeadLetterEffect(reason):
                    self.dead_letters.append((key, reason))
                case ResultEffect():
                    self._result(key, row, effect.outcome or outcome)

    def _work(self, row: Status, work: WorkEffect) -> None:
        partitions = self._work_partitions(row["queue"])
        if not partitions:
            return  # its workers find it by its state record
        partition = stable_hash(row["id"]) % partitions
        record = outputs.work_record(row, work, now_ms=self._now_ms, traceparent=self._parent(row))
        self.add(AddressedRecord(self.prefix + topics.work(row["queue"], self._level), partition, record))

    def _result(self, key: StateKey, row: Status, outcome: Outcome | None) -> None:
        """Add the result. If a crash left one in the log, the state record is taken from that one instead."""
        if known := self._known_results.get(key):
            offset, result = known
            self.rows[key] = {
                **row,
                "state": result["state"],
                "finished_ms": result["finished_ms"],
                "status_code": result["status_code"],
                "error_code": result["error_code"],
                "error_message": result["error_message"],
            }
            self.results[key] = PendingResult(key, None, offset)
            self.reasons["result_recovered"] += 1
            return
        result = outputs.result_of(row, outcome, now_ms=self._now_ms, prices=self._rules.prices)
        record = outputs.result_record(result, traceparent=self._parent(row))
        self.results[key] = PendingResult(key, record, None)
        self.usage[self.prefix + topics.USAGE, key[0]].append(outputs.usage_record(result))

    def _parent(self, row: Status) -> bytes | None:
        """Return the trace context of the input, or else that of the task."""
        stored = row["traceparent"]
        return self._traceparents.get(row["id"]) or (stored.encode() if stored is not None else None)

    def add(self, item: AddressedRecord) -> None:
        """Add a record, written before the state records."""
        self.records[item.topic, item.partition].append(item.record)


def result_of(record: Any) -> tuple[StateKey, tuple[int, Result]]:
    """Decode a record of results.LEVEL without its body; returns (state key, (offset, result))."""
    result = RESULT.decode(record.value or b"")
    result["body"] = None
    return (record.partition, result["id"]), (record.offset, result)
