"""What surrounds feeder and writer in the tests: a store, a log of results, and the scheduler's verdict."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
from aiokafka import TopicPartition
from obstore.store import LocalStore

from core.kafka.log_reader import LogReader, LogRecord
from core.settings.models import Settings
from core.storage.blobs import BlobStore
from schemas import bitmap, topics
from schemas.batches import BATCH_ENDED, Batch, segments_of
from schemas.codec import EVENT, RESULT, TASK
from schemas.common import Blob
from schemas.headers import BATCH_ID
from schemas.ids import TaskId
from schemas.records import Event, Result, Task
from streams.state_machine import batches
from tests.support.dispatcher_doubles import MemoryProducer
from tests.support.results import result_of

HOME = 3
BATCH = TaskId(7, 1, "P", 1_795_000_000, HOME, 11)
ENDPOINT = "/v1/chat/completions"
RETENTION_MS = 86_400_000


def batch_row(blob: Blob, **changes: Any) -> Batch:
    """Build the row of a batch that was just created."""
    base: Batch = {
        "state": "validating",
        "id": BATCH.batch(),
        "owner": "key-1",
        "queue": "batch",
        "queue_number": 7,
        "endpoint": ENDPOINT,
        "input_file_id": "file-1",
        "input": blob,
        "completion_window": "24h",
        "metadata": {},
        "replace": None,
        "callback_url": None,
        "output_expires_s": None,
        "traceparent": None,
        "stamp_s": 1_795_000_000,
        "created_ms": 1_795_000_000_000,
        "expires_ms": 1_795_086_400_000,
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
        "source_offset": 5,
        "updated_ms": 0,
    }
    return {**base, **changes}  # type: ignore[typeddict-item]


def request_line(number: int, **changes: Any) -> bytes:
    """Build one line of an input file, without its end."""
    body = {"model": "m", "messages": [{"role": "user", "content": f"say {number}"}]}
    line = {"custom_id": f"c-{number}", "method": "POST", "url": ENDPOINT, "body": body}
    return orjson.dumps({**line, **changes})


def input_file(count: int) -> bytes:
    """Build a file of so many requests."""
    return b"".join(request_line(number) + b"\n" for number in range(count))


class MemoryLookup(LogReader):
    """A log in memory."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, name="memory")
        self.log: list[LogRecord] = []
        self.first = 0

    async def read_range(self, tp: TopicPartition, offset: int, end: int) -> AsyncGenerator[LogRecord, None]:
        assert tp.partition == HOME
        for record in self.log[max(offset, self.first) : end]:
            yield record

    async def bounds(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        return {tp: (self.first, len(self.log)) for tp in tps}


class Stage:
    """One batch, its files and its scheduler."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.settings = settings
        self.folder = folder
        self.blobs = BlobStore(LocalStore(folder, mkdir=True))
        self.producer = MemoryProducer(settings)
        self.lookup = MemoryLookup(settings)
        self.row: Batch | None = None
        self.now_ms = 1_795_000_000_000
        self.reasons: list[str] = []
        self.tasks: list[Task] = []
        self._judged = 0

    async def create(self, file: bytes, **changes: Any) -> Batch:
        """Store a file and create its batch."""
        blob = await self.blobs.put(file, name="files/file-1", media_type="application/jsonl")
        self.row = batch_row(blob, **changes)
        return self.row

    def rows(self) -> list[Batch]:
        """Return the row while the batch has not ended, as `Rows` does."""
        return [] if self.row is None or self.row["state"] in BATCH_ENDED else [self.row]

    def open_row(self) -> Batch | None:
        """Return the same row, or none."""
        return next(iter(self.rows()), None)

    def judge(self) -> None:
        """Let the scheduler read what was written since."""
        written = self.producer.written[self._judged :]
        self._judged = len(self.producer.written)
        for topic, partition, record in written:
            assert partition == HOME
            if topic == self.settings.topic(topics.tasks(1)):
                self._line(TASK.decode(record.value or b""))
            else:
                assert topic == self.settings.topic(topics.events(1))
                self.apply(EVENT.decode(record.value or b""))

    def apply(self, event: Event) -> None:
        """Fold one event."""
        step = batches.apply(self.row, event, now_ms=self.now_ms, retention_ms=RETENTION_MS)
        self.row = step.batch
        if step.reason is not None:
            self.reasons.append(step.reason)

    def events(self, kind: str) -> list[Event]:
        """Return the events of a kind that were written."""
        name = self.settings.topic(topics.events(1))
        found = [EVENT.decode(record.value or b"") for topic, _, record in self.producer.written if topic == name]
        return [one for one in found if one["kind"] == kind]

    def end(self, lines: Iterable[int], **changes: Any) -> None:
        """Give lines their results, some of other tasks between them, and count them."""
        for line in lines:
            assert self.row is not None
            self._append(result_of("TASK-1-1-C-260131120000-0003-000001"), batch_id=None)
            task_id = batches.line_task_id(self.row, line)
            made = {
                "mode": "batch",
                "batch_id": self.row["id"],
                "batch_line": line,
                "custom_id": f"c-{line}",
                **changes,
            }
            result = {**result_of(task_id), **made}
            state = result["state"]
            self.row = batches.line_ended(self.row, line, state, None, now_ms=self.now_ms)
            offset = self._append(result, batch_id=self.row["id"])
            first = offset if self.row["written_to"] is None and not bitmap.count(self.row["written"]) else None
            self.row = batches.result_written(self.row, offset, first=first)

    async def content(self, *, errors: bool) -> list[Any]:
        """Return the lines of a file as the row has it."""
        assert self.row is not None
        text = b"".join([await self.blobs.read(piece.name) for piece in segments_of(self.row, errors=errors)])
        return [orjson.loads(line) for line in text.splitlines()]

    def stored(self) -> set[str]:
        """Return the names of all pieces there are."""
        found = (self.folder / "batches").rglob("*")
        return {str(path.relative_to(self.folder)) for path in found if path.is_file()}

    def _append(self, result: Result, *, batch_id: str | None) -> int:
        offset = len(self.lookup.log)
        headers = [] if batch_id is None else [(BATCH_ID, batch_id.encode())]
        value = RESULT.encode(result)
        self.lookup.log.append(LogRecord("results", HOME, offset, 0, result["id"].encode(), value, headers))
        return offset

    def _line(self, task: Task) -> None:
        self.tasks.append(task)
        step = batches.line_submitted(self.row, task, task_id=task["id"] or "", unknown=True, has_result=False)
        if step.reason is not None:
            self.reasons.append(step.reason)
        elif step.batch is not None:
            self.row = step.batch
