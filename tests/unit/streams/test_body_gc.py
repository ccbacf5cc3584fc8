"""Which stored bodies are swept away, and which must stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.settings.models import Settings
from core.storage.blobs import BlobStore, open_blobs
from schemas import ids
from schemas.codec import STATUS
from schemas.records import Status
from schemas.topics import DAY_MS
from streams.body_gc import STAGING_TTL_MS, BodySweeper, is_expired, read_name
from streams.state_machine.rows import NO_OFFSET, TaskRules, new_status
from tests.support.clocks import now_ms
from tests.support.records import task

ID = "TASK-7-0-C-261121044308-0002-000005"
OFFLINE = "TASK-7-1-C-261121044308-0002-000005"
UNREAD_MS, CALLBACK_MS = 1_000_000, 500_000


def row(**changes: Any) -> Status:
    base = new_status(task(id=ID), task_id=ID, offset=5, created_ms=1, rules=TaskRules())
    return {**base, **changes}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("name", "attempt"),
    [(f"tasks/{ID}", None), (f"results/{ID}-1-0a1b2c3d", 1), (f"results/{ID}-12-ffffffff", 12)],
)
def test_names_of_bodies(name: str, attempt: int | None) -> None:
    read = read_name(name)
    assert read is not None
    assert (read.task_id, read.level, read.partition, read.attempt) == (ID, 0, 2, attempt)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "tasks/",
        "tasks/x",
        f"results/{ID}",
        f"tasks/{ID}-1-0a1b2c3d",
        f"files/{ID}",
        f"tasks/{ID}/x",
        f"tasks/{ID}#1",
        f"arriving/{'0' * 32}",
        ID,
        f"results/{ID}-1-0a1b2c3d.json",
        "tasks/TASK-7-0-C-261199044308-0002-000005",
    ],
)
def test_other_names_are_ignored(name: str) -> None:
    assert read_name(name) is None


STAYS: list[tuple[str, Status | None, int]] = [
    ("tasks", None, UNREAD_MS),
    ("tasks", row(), 10 * UNREAD_MS),
    ("tasks", row(state="processing", attempt=3), 10 * UNREAD_MS),
    ("tasks", row(state="completed"), 10 * UNREAD_MS),
    ("tasks", row(state="expired", source_offset=NO_OFFSET), UNREAD_MS),
    ("results", None, UNREAD_MS),
    ("results", row(state="processing", attempt=2), 10 * UNREAD_MS),
    ("results", row(attempt=1), 10 * UNREAD_MS),
    ("results", row(state="completed", attempt=2), 10 * UNREAD_MS),
    ("results", row(state="failed", attempt=2), 10 * UNREAD_MS),
    ("results", row(state="expired", attempt=2, callback_url="http://x"), CALLBACK_MS),
]
GOES: list[tuple[str, Status | None, int]] = [
    ("tasks", None, UNREAD_MS + 1),
    ("tasks", row(state="expired"), 0),
    ("tasks", row(state="expired", duplicate_of=OFFLINE), 0),
    ("tasks", row(state="expired", source_offset=NO_OFFSET), UNREAD_MS + 1),
    ("results", None, UNREAD_MS + 1),
    ("results", row(state="expired", attempt=2), 0),
    ("results", row(state="expired", attempt=2, callback_url="http://x"), CALLBACK_MS + 1),
    ("results", row(state="expired", attempt=3, callback_url="http://x"), 0),
    ("tasks", row(state="expired", callback_url="http://x"), 0),
    ("results", row(state="completed", attempt=3), 0),
    ("results", row(state="processing", attempt=3), 0),
    ("results", row(state="completed", attempt=1), 0),
]


@pytest.mark.parametrize(
    ("kind", "found", "age_ms", "over"), [(*one, False) for one in STAYS] + [(*one, True) for one in GOES]
)
def test_what_stays_and_what_goes(kind: str, found: Status | None, age_ms: int, over: bool) -> None:
    name = read_name(f"tasks/{ID}" if kind == "tasks" else f"results/{ID}-2-00000000")
    assert name is not None
    assert is_expired(name, found, age_ms=age_ms, unread_ms=UNREAD_MS, callback_ms=CALLBACK_MS) is over


class Table:
    """Rows in memory."""

    def __init__(self, *rows: Status) -> None:
        self.rows = {(ids.parse(one["id"]).partition, one["id"].encode()): STATUS.encode(one) for one in rows}

    def get(self, partition: int, key: bytes) -> bytes | None:
        return self.rows.get((partition, key))


def sweeper(tmp_path: Path, *rows: Status, level: int = 0, owned: set[int]) -> tuple[BodySweeper, BlobStore]:
    settings = Settings(data_dir=tmp_path)
    blobs = open_blobs(settings)
    table: Any = Table(*rows)
    return BodySweeper(settings, level, blobs=blobs, rows=table, partitions=owned), blobs


async def left(blobs: BlobStore) -> set[str]:
    return {
        one.name
        for prefix in ("tasks", "results", "arriving", "uploads", "files")
        async for batch in blobs.listed(prefix)
        for one in batch
    }


async def test_a_sweep_deletes_what_is_over_and_nothing_else(tmp_path: Path) -> None:
    retained = ID.replace("000005", "000006")
    sweeping, blobs = sweeper(tmp_path, row(state="expired"), row(id=retained, state="completed"), owned={2})
    stay = {
        f"tasks/{retained}",
        f"results/{retained}-1-00000000",
        f"tasks/{OFFLINE}",
        "files/x",
        "arriving/x",
        "uploads/x",
    }
    for name in (*stay, f"tasks/{ID}", f"results/{ID}-1-00000000"):
        await blobs.put(b"x", name=name, media_type="text/plain")
    assert await sweeping.sweep(now_ms=now_ms()) == 2
    assert await left(blobs) == stay
    assert await sweeping.sweep(now_ms=now_ms()) == 0


async def test_bodies_of_other_partitions_are_not_touched(tmp_path: Path) -> None:
    owned: set[int] = {0, 1}
    sweeping, blobs = sweeper(tmp_path, row(state="expired"), owned=owned)
    await blobs.put(b"x", name=f"tasks/{ID}", media_type="text/plain")
    assert await sweeping.sweep(now_ms=now_ms() + 100 * DAY_MS) == 0
    owned.add(2)
    assert await sweeping.sweep(now_ms=now_ms()) == 1


@pytest.mark.parametrize(("level", "task_id", "days"), [(0, ID, 1), (1, OFFLINE, 15)])
async def test_a_body_without_a_row_stays_as_long_as_its_task_may_lie_unread(
    tmp_path: Path, level: int, task_id: str, days: int
) -> None:
    sweeping, blobs = sweeper(tmp_path, level=level, owned={2})
    await blobs.put(b"x", name=f"tasks/{task_id}", media_type="text/plain")
    assert await sweeping.sweep(now_ms=now_ms() + days * DAY_MS) == 0
    assert await sweeping.sweep(now_ms=now_ms() + (days + 1) * DAY_MS) == 1


async def test_uploads_that_never_became_tasks_go_after_an_hour(tmp_path: Path) -> None:
    sweeping, blobs = sweeper(tmp_path, owned={2})
    await blobs.put(b"x", name="arriving/x", media_type="text/plain")
    await blobs.put(b"x", name="uploads/x", media_type="text/plain")
    assert await sweeping.sweep(now_ms=now_ms() + STAGING_TTL_MS // 2) == 0
    assert await sweeping.sweep(now_ms=now_ms() + STAGING_TTL_MS + 60_000) == 1
    assert await left(blobs) == {"uploads/x"}
    assert await sweeping.sweep(now_ms=now_ms() + 400 * DAY_MS) == 1
