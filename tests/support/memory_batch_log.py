"""The durable state of the offline level, in memory: a log that can be cut off anywhere, and its transactions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from core.kafka.producer import Record
from core.settings.models import Settings
from schemas import bitmap, topics
from schemas.batches import Batch
from schemas.codec import BATCH, EVENT, RESULT, STATUS, WORK
from schemas.common import BatchPart
from schemas.events import change, event
from schemas.ids import TaskId
from schemas.records import Event, Result, Status
from streams.batch_transaction import BatchSource
from streams.commit import Committer
from streams.intake.decode import Submission
from streams.recovery.scan import sweep_batches
from streams.state_index import StateIndex
from streams.state_machine.batches import line_task_id
from streams.state_machine.rows import TaskRules
from streams.transaction import StateKey, Transaction
from tests.support.records import task

HOME = 3
CREATED_MS = 1_795_000_000_000
WINDOW_MS = 86_400_000
RETENTION_MS = 30 * 86_400_000
QUEUE_NUMBER = 7


class Cut(Exception):
    """The process died here."""


class MemoryRows:
    """A table whose changelog is the log."""

    def __init__(self) -> None:
        self.values: dict[StateKey, bytes] = {}

    def get(self, partition: int, key: bytes) -> bytes | None:
        return self.values.get((partition, key.decode()))

    def put(self, partition: int, rows: list[tuple[bytes, bytes | None]], *, offset: int) -> None:
        assert offset >= 0
        for key, value in rows:
            if value is None:
                self.values.pop((partition, key.decode()), None)
            else:
                self.values[partition, key.decode()] = value

    def scan(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        return ((key.encode(), value) for (home, key), value in self.values.items() if home == partition)


class BatchLog:
    """One partition: `process` handles inputs as the scheduler does; after a `Cut`, `restart` recovers."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.log: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.cut_after: int | None = None
        """Records that still become durable before the process dies."""
        self._read = 0
        self.known: Mapping[StateKey, tuple[int, Result]] = {}
        self.reasons: dict[str, int] = defaultdict(int)
        self.rows, self.batches = MemoryRows(), MemoryRows()
        self.index = StateIndex(batch_retention_ms=RETENTION_MS)

    async def send_batch(self, records: Mapping[tuple[str, int], Sequence[Record]]) -> dict[tuple[str, int], list[int]]:
        """Write as the producer does, until the cut."""
        offsets: dict[tuple[str, int], list[int]] = defaultdict(list)
        for place, group in records.items():
            for record in group:
                if self.cut_after is not None:
                    if not self.cut_after:
                        raise Cut
                    self.cut_after -= 1
                offsets[place].append(len(self.log[place]))
                self.log[place].append(record)
        return offsets

    async def process(
        self,
        *inputs: tuple[int, Submission | Event],
        now_ms: int = CREATED_MS + 1_000,
        was_attempted: Callable[[int, str, int], bool] = lambda *_: False,
    ) -> Transaction:
        """Process inputs, each with its offset, and commit them."""
        transaction = Transaction(
            level=1,
            rules=TaskRules(),
            now_ms=now_ms,
            prefix="headrace.",
            row=self.rows.get,
            known_results=self.known,
            work_partitions=lambda _: 4,
            holders=lambda *_: set(),
            was_attempted=was_attempted,
            batches=BatchSource(self.batches.get, self.index.second_in_use, RETENTION_MS),
        )
        for offset, one in inputs:
            if isinstance(one, Submission):
                transaction.submission(one, partition=HOME, offset=offset)
            else:
                transaction.event(one, partition=HOME, offset=offset)
        committer = Committer(
            self.settings,
            1,
            producer=self,
            index=self.index,
            rows=self.rows,  # type: ignore[arg-type]  # doubles
            batches=self.batches,  # type: ignore[arg-type]
        )
        await committer.commit(transaction, now_ms)
        for reason, count in transaction.reasons.items():
            self.reasons[reason] += count
        return transaction

    async def restart(self) -> None:
        """Recover both tables from their changelogs, and know the results in the log."""
        self.cut_after = None
        self.rows, self.batches = MemoryRows(), MemoryRows()
        for table, name in ((self.rows, topics.status(1)), (self.batches, topics.BATCHES)):
            for offset, record in enumerate(self.log[f"headrace.{name}", HOME]):
                table.put(HOME, [(record.key or b"", record.value)], offset=offset)
        self.index = StateIndex(batch_retention_ms=RETENTION_MS)
        rows: Any = self.batches
        await sweep_batches(rows, self.index, [HOME], now_ms=CREATED_MS, rebuild=True)
        self.known = {
            (HOME, result["id"]): (offset, {**result, "body": None}) for offset, result in enumerate(self.results)
        }

    @property
    def results(self) -> list[Result]:
        """All results in the log."""
        return [RESULT.decode(record.value or b"") for record in self.log[f"headrace.{topics.results(1)}", HOME]]

    def own_events(self) -> list[Event]:
        """Return what the scheduler wrote to its own events since the last call."""
        told = [EVENT.decode(record.value or b"") for record in self.log[f"headrace.{topics.events(1)}", HOME]]
        self._read, begin = len(told), self._read
        return told[begin:]

    @property
    def worked(self) -> list[str]:
        """The ids of all work records in the log."""
        return [
            WORK.decode(record.value or b"")["id"]
            for (topic, _), group in self.log.items()
            if ".work." in topic
            for record in group
        ]

    def batch(self, batch_id: str) -> Batch:
        """Return a batch's row, without the time of its record."""
        return {**BATCH.decode(self.batches.values[HOME, batch_id]), "updated_ms": 0}

    def line(self, batch: Batch, number: int) -> Status | None:
        """Return the row of a line, without the time of its record."""
        value = self.rows.values.get((HOME, line_task_id(batch, number)))
        return None if value is None else {**STATUS.decode(value), "updated_ms": 0}


def batch_id(serial: int = 0, *, home: int = HOME, created_ms: int = CREATED_MS) -> str:
    """Return the id of a batch."""
    return TaskId(QUEUE_NUMBER, 1, "P", created_ms // 1000, home, serial).batch()


def proposed(one: str, **changes: Any) -> Batch:
    """Build what the ingress proposes."""
    base: Batch = {
        "state": "validating",
        "id": one,
        "owner": "key-1",
        "queue": "batch",
        "queue_number": QUEUE_NUMBER,
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
        "input": {"uri": "files/file-1", "size": 10, "sha256": "0" * 64},
        "completion_window": "24h",
        "metadata": {},
        "replace": None,
        "callback_url": None,
        "output_expires_s": None,
        "traceparent": None,
        "stamp_s": 0,
        "created_ms": CREATED_MS,
        "expires_ms": CREATED_MS + WINDOW_MS,
        "in_progress_ms": None,
        "finalizing_ms": None,
        "completed_ms": None,
        "failed_ms": None,
        "expired_ms": None,
        "cancelling_ms": None,
        "cancelled_ms": None,
        "ending": None,
        "errors": [],
        "total": 0,
        "fed": 0,
        "completed": 0,
        "failed": 0,
        "ended": b"",
        "written": b"",
        "written_to": None,
        "last_result": None,
        "parts": [],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        "source_offset": -1,
        "updated_ms": 0,
    }
    return {**base, **changes}  # type: ignore[typeddict-item]


def created(one: str, **changes: Any) -> Event:
    """Build the event that proposes a batch."""
    return event("batch_created", at_ms=1, task_id=one, change=change(batch=BATCH.encode(proposed(one, **changes))))


def validated(one: str, total: int) -> Event:
    """Build the event that validates a file with this number of lines."""
    return event("batch_validated", at_ms=1, task_id=one, change=change(total=total))


def line(batch: Batch, number: int, **changes: Any) -> Submission:
    """Build a line as the feeder writes it."""
    task_id, created_ms = line_task_id(batch, number), batch["created_ms"]
    made = task(
        id=task_id,
        queue=batch["queue"],
        level=1,
        mode="batch",
        created_ms=created_ms,
        batch_id=batch["id"],
        batch_line=number,
        custom_id=f"c-{number}",
        **changes,
    )
    return Submission(task_id, made, created_ms, None)


def part(
    one: str, begin: int, end: int, lines: set[int], *, errors: int = 0, name: str = "t", last: bool = False
) -> Event:
    """Build the event by which the writer reports a segment."""
    piece: BatchPart = {
        "end": end,
        "token": name,
        "output_bytes": 10 * (len(lines) - errors),
        "error_bytes": 10 * errors,
        "output_lines": len(lines) - errors,
        "error_lines": errors,
    }
    said = change(part=piece, begin=begin, lines=bitmap.of(lines), last=last)
    return event("batch_part", at_ms=1, task_id=one, change=said)
