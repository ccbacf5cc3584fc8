"""Ingresses that hand out tasks, over one scheduler in memory: the real state machine, and views that may lag."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from aiokafka import TopicPartition

from core.errors import Unavailable
from core.kafka.log_reader import LogRecord
from core.kafka.producer import Record
from core.settings.models import Settings
from ingress.pull.service import PullService
from schemas.codec import EVENT, STATUS, TASK, state_of
from schemas.ids import TaskId
from schemas.partitioning import queue_number
from schemas.records import Event, State, Status
from streams.outputs import status_record
from streams.state_machine import tasks
from streams.state_machine.rows import TaskRules
from tests.support.records import task

QUEUE = "chat"


class View:
    """A read model that reads when it is told to, or at once."""

    caught_up = True

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.rows: dict[bytes, bytes] = {}
        self.position = 0
        self.paused = False
        self.watchers: list[Callable[[list[Record]], None]] = []
        self._moved = asyncio.Event()

    def catch_up(self) -> None:
        """Read everything."""
        records = self.cluster.log[self.position :]
        self.position += len(records)
        if records:
            for watcher in self.watchers:
                watcher(records)
            self.rows.update({record.key or b"": record.value or b"" for record in records})
            self._moved.set()

    def get(self, key: bytes) -> Status | None:
        return STATUS.decode(self.rows[key]) if key in self.rows else None

    def state(self, key: bytes) -> State | None:
        return state_of(self.rows[key]) if key in self.rows else None

    def scan(self, begin: bytes, end: bytes, *, limit: int) -> list[tuple[bytes, bytes]]:
        return sorted((key, value) for key, value in self.rows.items() if begin <= key < end)[:limit]

    async def wait_until(self, key: bytes, wanted: Callable[[Status], bool], *, seconds: float) -> Status | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (row := self.get(key)) is None or not wanted(row):
                    self._moved.clear()
                    await self._moved.wait()
        return self.get(key)

    async def wait_for_offset(self, tp: TopicPartition, offset: int) -> None:
        assert tp.partition == 0
        while self.position <= offset:
            self._moved.clear()
            if not self.paused:
                self.catch_up()
            else:
                await self._moved.wait()


class Cluster:
    """One level whose tasks all live in partition 0; everything else that a puller uses is here, too."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rules = TaskRules()
        self.rows: dict[str, Status] = {}
        self.log: list[Record] = []
        self.waiting: list[Event] = []
        self.judging = True
        self.down = False
        self.views: list[View] = []

    def ingress(self) -> tuple[PullService, View]:
        """Return the puller of a new ingress, and its view."""
        view = View(self)
        self.views.append(view)
        parts: Any = self
        model: Any = view
        name = f"ingress-{len(self.views)}"
        return PullService(self.settings, name=name, producer=parts, view=model, log_reader=parts, blobs=parts), view

    def submit(self, *created_ms: int, **changes: Any) -> list[str]:
        """Let the scheduler accept tasks."""
        made = []
        for at_ms in created_ms:
            text = str(TaskId(queue_number(QUEUE), 0, "C", 1_795_000_000, 0, len(self.rows)))
            row = tasks.submitted(
                None,
                task(queue=QUEUE, timeout_ms=60_000, **changes),
                task_id=text,
                offset=len(self.rows),
                created_ms=at_ms,
                now_ms=at_ms,
                rules=self.rules,
            ).row
            assert row is not None
            # Its deadline is far from every clock, for these tests run by the real one.
            self.write({**row, "deadline_ms": 1 << 60})
            made.append(text)
        return made

    def write(self, row: Status) -> None:
        """Make a row durable."""
        self.rows[row["id"]] = row
        self.log.append(status_record(row, now_ms=0))
        for view in self.views:
            if not view.paused:
                asyncio.get_running_loop().call_soon(view.catch_up)

    def judge(self) -> None:
        """Fold the events that wait."""
        waiting, self.waiting = self.waiting, []
        for what in waiting:
            step = tasks.apply(self.rows[what["id"]], what, now_ms=what["at_ms"], rules=self.rules)
            if step.reason is None and step.row is not None:
                self.write(step.row)

    async def send_all(self, records: list[tuple[str, int, Record]]) -> None:
        """Take events."""
        if self.down:
            raise Unavailable
        self.waiting += [EVENT.decode(record.value or b"") for _, _, record in records]
        await asyncio.sleep(0)
        if self.judging:
            self.judge()

    async def offset_at(self, tp: TopicPartition, at_ms: int) -> int:
        assert at_ms == -1
        return 0 if tp.partition else len(self.log)

    async def read(self, tp: TopicPartition, offset: int) -> LogRecord:
        [task_id] = [task_id for task_id, row in self.rows.items() if row["source_offset"] == offset]
        return LogRecord(tp.topic, tp.partition, offset, 0, None, TASK.encode(task(id=task_id, queue=QUEUE)))
