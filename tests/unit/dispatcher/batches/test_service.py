"""The batch component stops everything that it has started."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from core.clock import Deadline
from core.settings.models import Settings
from core.storage.blobs import BlobStore
from dispatcher.batches import service
from dispatcher.batches.index import BatchIndex
from dispatcher.batches.service import BatchService
from dispatcher.task_supervisor import TaskSupervisor
from tests.support.batch_doubles import Stage
from tests.support.waiting import eventually_async


class Assignment:
    """A group that has assigned one partition to this member; a poll takes until `turn` is set."""

    owned = frozenset({0})
    assigned = True

    def __init__(self, *_: Any, **__: Any) -> None:
        self.turn = asyncio.Event()

    async def poll(self, _: int) -> list[Any]:
        await asyncio.sleep(0)
        await self.turn.wait()
        return []

    async def close(self, _: Deadline) -> None: ...


async def test_a_stop_in_the_middle_of_a_look_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: Any) -> None: ...

    monkeypatch.setattr(service, "BatchAssignment", Assignment)
    for name in ("open", "close"):
        monkeypatch.setattr(BatchIndex, name, nothing)
    monkeypatch.setattr(BatchService, "_open_log_reader", nothing)
    stage = Stage(tmp_path, Settings())
    blobs: BlobStore = stage.blobs
    rows, producer = BatchIndex(stage.settings, name="t"), stage.producer
    batches = BatchService(
        stage.settings, name="t", supervisor=TaskSupervisor(), producer=producer, blobs=blobs, batch_index=rows
    )
    assignment: Any = batches._assignment
    await batches.open()
    assignment.turn.set()
    await eventually_async(lambda: batches.ready()[1]["partitions"] == 1, what="the partition is worked for")
    assignment.turn.clear()
    closing = asyncio.create_task(batches.close(Deadline(60)))
    await asyncio.sleep(0)
    assignment.turn.set()
    await closing
    running = [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("batches-")]
    assert running == []
