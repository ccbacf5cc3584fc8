"""The worker of one partition: it starts submitters, collects garbage, and survives an unexpected error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from core.settings.models import Settings
from dispatcher.batches import partition_worker as home_module
from dispatcher.batches.index import BatchIndex
from dispatcher.batches.partition_worker import PartitionWorker
from dispatcher.batches.submitter import FairShare
from schemas.batches import Batch
from schemas.codec import BATCH
from tests.support.batch_doubles import HOME, Stage, input_file
from tests.support.waiting import eventually_async


class Partition:
    """A worker whose index receives rows as from the topic."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.rows = BatchIndex(stage.settings, name="t")
        self.home = PartitionWorker(
            stage.settings,
            HOME,
            batch_index=self.rows,
            log_reader=stage.lookup,
            blobs=stage.blobs,
            producer=stage.producer,
            fair_share=FairShare(),
        )
        self.rows.on_change = lambda _: self.home.on_change()

    def tell(self, row: Batch | None, batch_id: str = "") -> None:
        """Write a row."""
        key = (row["id"] if row is not None else batch_id).encode()
        now: Any = None if row is None else BATCH.encode({**row, "updated_ms": time.time_ns() // 1_000_000})
        record: Any = SimpleNamespace(key=key, value=now)
        self.rows.apply(TopicPartition("batches", HOME), [record])


@pytest.fixture
async def partition(tmp_path: Path) -> AsyncIterator[Partition]:
    made = Partition(Stage(tmp_path, Settings()))
    running = asyncio.create_task(made.home.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_batch_goes_its_whole_way(partition: Partition) -> None:
    stage = partition.stage
    partition.tell(await stage.create(input_file(12)))

    def goes_on(state: str) -> bool:
        before = stage.row
        stage.judge()
        assert stage.row is not None
        if stage.row is not before:
            partition.tell(stage.row)
        return stage.row["state"] == state

    await eventually_async(lambda: goes_on("in_progress"))
    assert stage.row is not None
    await eventually_async(lambda: goes_on("in_progress") and stage.row is not None and stage.row["fed"] == 12)
    stage.end(range(12))
    partition.tell(stage.row)
    await eventually_async(lambda: goes_on("completed"))
    assert [line["custom_id"] for line in await stage.content(errors=False)] == [f"c-{line}" for line in range(12)]
    assert stage.reasons == []


async def test_pieces_that_do_not_count_go_when_the_batch_ends_and_the_rest_with_its_row(partition: Partition) -> None:
    stage = partition.stage
    part = {"end": 4, "token": "t", "output_bytes": 2, "error_bytes": 0, "output_lines": 1, "error_lines": 0}
    row = await stage.create(input_file(1), state="completed", parts=[part])
    counts, late = f"batches/{row['id']}/output/000000000004-t", f"batches/{row['id']}/output/000000000004-late"
    other = "batches/batch_other/output/000000000004-t"
    for name in (counts, late, other):
        await stage.blobs.put(b"{}", name=name, media_type="application/jsonl")
    partition.tell(row)
    await eventually_async(lambda: stage.stored() == {counts, other})
    partition.tell(None, row["id"])
    await eventually_async(lambda: stage.stored() == {other})


async def test_a_row_that_goes_while_its_pieces_are_sorted_out_takes_the_last_along(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = partition.stage
    part = {"end": 4, "token": "t", "output_bytes": 2, "error_bytes": 0, "output_lines": 1, "error_lines": 0}
    row = await stage.create(input_file(1), state="completed", parts=[part])
    counts, late = (f"batches/{row['id']}/output/000000000004-{token}" for token in ("t", "late"))
    for name in (counts, late):
        await stage.blobs.put(b"{}", name=name, media_type="application/jsonl")
    remove = stage.blobs.remove

    async def removed(name: str) -> None:
        await remove(name)
        if name == late:
            partition.tell(None, row["id"])

    monkeypatch.setattr(stage.blobs, "remove", removed)
    partition.tell(row)
    await eventually_async(lambda: not stage.stored(), what="an empty store")


async def test_an_error_of_ours_ends_nothing(partition: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_module, "CRASH_DELAY_S", 0.05)
    stage = partition.stage
    row = await stage.create(input_file(1), replace=b"no JSON")
    partition.tell(row)
    await asyncio.sleep(0)
    good = {**row, "replace": None}
    partition.tell(good)  # type: ignore[arg-type]
    await eventually_async(lambda: stage.events("batch_validated"))
