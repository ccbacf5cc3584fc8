"""A lane that is read while it changes counts every row once."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from core.settings.models import Settings
from ingress.pull.queue import QueueLevel
from ingress.pull.queue_index import PullIndex
from ingress.read_model.queue_scan import ROWS_PER_STEP
from schemas.records import TERMINAL
from tests.support.memory_pull import QUEUE, Cluster

LANE = QueueLevel(QUEUE, 0)


@pytest.mark.parametrize("seed", range(5))
async def test_rows_that_change_while_they_are_read_are_counted_once(tmp_path: Path, seed: int) -> None:
    chance, cluster = random.Random(seed), Cluster(Settings(data_dir=tmp_path))
    _, view = cluster.ingress()
    ids = cluster.submit(*range(1, 2 * ROWS_PER_STEP))
    view.catch_up()
    book: Any = PullIndex(view)  # type: ignore[arg-type]
    watched = book.watch(LANE)
    for _ in range(60):
        if chance.random() < 0.2:
            ids += cluster.submit(len(ids) + 1)
        row = cluster.rows[chance.choice(ids)]
        state = chance.choice(("queued", "processing", "completed", "failed"))
        cluster.write({**row, "state": state, "started_ms": 5 if state != "queued" else row["started_ms"]})
        view.catch_up()
        if chance.random() < 0.2:
            await asyncio.sleep(0)
    assert await watched.counted(10)
    rows = cluster.rows.values()
    assert watched.queue.counts == (
        len(rows),
        sum(row["started_ms"] is not None for row in rows),
        sum(row["state"] in TERMINAL for row in rows),
    )
    assert watched.queue.held == {row["id"] for row in rows if row["state"] == "processing"}
    waiting = sorted((row["created_ms"], row["id"]) for row in rows if row["state"] == "queued")
    assert watched.queue.oldest(9_999, before_ms=1 << 60) == waiting


async def test_other_lanes_change_nothing(tmp_path: Path) -> None:
    cluster = Cluster(Settings(data_dir=tmp_path))
    _, view = cluster.ingress()
    cluster.submit(1, 2)
    view.catch_up()
    book: Any = PullIndex(view)  # type: ignore[arg-type]
    for other in (QueueLevel(QUEUE, 1), QueueLevel("other", 0)):
        watched = book.watch(other)
        assert await watched.counted(10)
        assert watched.queue.counts == (0, 0, 0)


async def test_a_queue_whose_name_has_the_same_number_is_another(tmp_path: Path) -> None:
    cluster = Cluster(Settings(data_dir=tmp_path))
    _, view = cluster.ingress()
    foreign, mine = cluster.submit(1, 2)
    cluster.write({**cluster.rows[foreign], "queue": "another"})
    view.catch_up()
    book: Any = PullIndex(view)  # type: ignore[arg-type]
    watched = book.watch(LANE)
    assert await watched.counted(10)
    cluster.write({**cluster.rows[foreign], "state": "processing"})
    view.catch_up()
    assert (watched.queue.counts, watched.queue.held) == ((1, 0, 0), set())
    assert [one.id for one in watched.queue.oldest(9, before_ms=1 << 60)] == [mine]
