"""Files and batches behind the routes: ranges over pieces, what is swept away, and what waits for what."""

from __future__ import annotations

import asyncio
import time
from itertools import accumulate
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from core.kafka.producer import Record
from core.settings.models import Settings
from core.storage.blobs import BlobStore, open_blobs
from ingress.batches.directory import BatchDirectory
from ingress.files import directory as book_module
from ingress.files.content import ByteRange, joined, parse_range
from ingress.files.directory import FileDirectory, is_recent, new_file_id
from ingress.files.sweeper import ORPHAN_TTL_MS, SEGMENT_TTL_MS, FileSweeper
from schemas.batches import Batch, BatchFile, Segment, segments_of
from schemas.codec import BATCH, FILE
from schemas.ids import TaskId
from tests.support.memory_batches import row_of

SETTINGS = Settings.model_validate({"storage": {"url": "memory:///"}})
TP = TopicPartition("t", 0)
DAY_MS = 86_400_000
BATCH_ID = TaskId(7, 1, "P", 1_769_860_800, 0, 1).batch()
GONE_ID = TaskId(7, 1, "P", 1_769_860_800, 0, 2).batch()


def consumed(key: str, value: bytes | None) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord(TP.topic, 0, 0, 0, 0, key.encode(), value, 0, 0, 0, ())  # type: ignore[arg-type]


def file_of(file_id: str, **changes: Any) -> BatchFile:
    made: BatchFile = {
        "id": file_id,
        "owner": "acme",
        "purpose": "batch",
        "filename": "x",
        "created_ms": 0,
        "expires_ms": None,
        "blob": {"uri": f"files/{file_id}", "size": 1, "sha256": "0" * 64},
    }
    return {**made, **changes}  # type: ignore[typeddict-item]


class Tombstones:
    """Takes the place of a producer, and of the topic behind it."""

    def __init__(self, book: FileDirectory) -> None:
        self.book = book

    async def send(self, _: str, __: int, record: Record) -> int:
        self.book.feed(TP, [consumed((record.key or b"").decode(), record.value)])
        self.book.tail.positions[TopicPartition(SETTINGS.topic("files"), 0)] = 1
        return 0


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    begin=st.integers(0, 250),
    length=st.integers(0, 250),
)
async def test_a_range_over_pieces_is_that_of_the_whole(sizes: list[int], begin: int, length: int) -> None:
    blobs = open_blobs(SETTINGS)
    whole = bytes(number % 251 for number in range(sum(sizes)))
    ends = [*accumulate(sizes)]
    for number, (size, end) in enumerate(zip(sizes, ends, strict=True)):
        await blobs.put(whole[end - size : end], name=f"p/{number}", media_type="x")
    pieces = [Segment(f"p/{number}", size) for number, size in enumerate(sizes)]
    end = min(begin + length, len(whole))
    found = b"".join([data async for data in joined(blobs, pieces, min(begin, end), end)])
    assert found == whole[min(begin, end) : end]


@given(header=st.text("bytes=-,0123456789 x", max_size=30), size=st.integers(0, 200))
def test_any_header_is_a_span_inside_or_the_whole(header: str, size: int) -> None:
    for asked in (header, f"bytes={header}"):
        span = parse_range(asked, size)
        assert span is None or 0 <= span.begin <= size >= span.end >= 0
    assert parse_range("bytes=-5", 3) == ByteRange(0, 3)


def test_new_ids_are_young_and_others_are_not() -> None:
    made = new_file_id(now_s=1_000)
    assert is_recent(made, now_s=1_030)
    assert not is_recent(made, now_s=1_100)
    assert not is_recent("file-x", now_s=0)


async def test_a_file_of_another_process_is_waited_for() -> None:
    book = FileDirectory(SETTINGS, name="t")
    book.tail.positions[TP] = 0
    file_id = new_file_id(now_s=int(time.time()))
    waiting = asyncio.create_task(book.find(file_id, owner="acme"))
    await asyncio.sleep(0)
    book.feed(TP, [consumed(file_id, FILE.encode(file_of(file_id)))])
    found = await waiting
    assert found is not None
    assert await book.find(file_id, owner="other") is None


async def test_a_file_that_was_removed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "OTHER_WAIT_S", 3_600)
    book = FileDirectory(SETTINGS, name="t")
    book.tail.positions[TP] = 0
    file_id = new_file_id(now_s=int(time.time()))
    waiting = asyncio.create_task(book.find(file_id, owner="acme"))
    await asyncio.sleep(0)
    book.feed(TP, [consumed(file_id, FILE.encode(file_of(file_id))), consumed(file_id, None)])
    assert await waiting is None
    assert await book.find(file_id, owner="acme") is None
    book.feed(TP, [consumed(file_id, FILE.encode(file_of(file_id)))])
    assert await book.find(file_id, owner="acme") == file_of(file_id)


def test_only_the_newest_removals_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "MAX_REMOVED", 3)
    book = FileDirectory(SETTINGS, name="t")
    book.feed(TP, [consumed(f"file-{number}", None) for number in range(5)])
    remembered = [f"file-{number}" in book._removed for number in range(5)]
    assert remembered[-2:] == [True, True]
    assert len(book._removed) <= 6


async def swept(
    blobs: BlobStore, *, files: list[BatchFile], batches: list[Batch], now_ms: int
) -> tuple[set[str], FileDirectory]:
    """Sweep once and return the names that are left."""
    book, directory = FileDirectory(SETTINGS, name="t"), BatchDirectory(SETTINGS, name="t")
    book.feed(TP, [consumed(file["id"], FILE.encode(file)) for file in files])
    directory.feed(TP, [consumed(batch["id"], BATCH.encode(batch)) for batch in batches])
    asked = []

    async def ends_read() -> None:
        asked.append(True)

    sweeper = FileSweeper(
        blobs=blobs,
        producer=Tombstones(book),
        files=book,
        batches=directory,
        sweep_s=1,  # type: ignore[arg-type]
        ends_read=ends_read,
    )
    await sweeper.sweep(now_ms=now_ms)
    assert asked
    return {one.name async for some in blobs.listed("") for one in some}, book


async def test_what_is_over_is_swept_and_nothing_else() -> None:
    blobs = open_blobs(SETTINGS)
    ids = {"kept": "file-1", "expired": "file-2", "used": "file-3", "orphan": "file-4", "borrowed": "file-5"}
    for file_id in ids.values():
        await blobs.put(b"x", name=f"files/{file_id}", media_type="x")
    row: Batch = {**row_of(BATCH_ID), "state": "in_progress", "input_file_id": ids["used"]}
    other: Batch = {**row_of(GONE_ID), "state": "validating", "input_file_id": ids["borrowed"]}
    part = {"end": 3, "token": "t", "output_bytes": 1, "error_bytes": 1, "output_lines": 1, "error_lines": 1}
    row["parts"] = [part]  # type: ignore[list-item]
    for errors in (False, True):
        [piece] = segments_of(row, errors=errors)
        await blobs.put(b"x", name=piece.name, media_type="x")
        await blobs.put(b"x", name=piece.name.replace(BATCH_ID, "batch_gone"), media_type="x")
    files = [
        file_of(ids["kept"]),
        file_of(ids["expired"], expires_ms=5),
        file_of(ids["used"], expires_ms=5),
    ]
    now_ms = int(time.time() * 1000)
    left, book = await swept(blobs, files=files, batches=[row, other], now_ms=now_ms)
    assert f"files/{ids['expired']}" not in left
    assert not book.known(ids["expired"])
    assert {f"files/{ids[name]}" for name in ("kept", "used", "orphan", "borrowed")} < left, (
        "an orphan may yet get a record"
    )
    left, _ = await swept(
        blobs, files=files[:1] + files[2:], batches=[row, other], now_ms=now_ms + ORPHAN_TTL_MS + 60_000
    )
    assert f"files/{ids['orphan']}" not in left
    assert f"files/{ids['borrowed']}" in left
    left, _ = await swept(
        blobs, files=files[:1] + files[2:], batches=[row, other], now_ms=now_ms + SEGMENT_TTL_MS + DAY_MS
    )
    assert {name.split("/")[1] for name in left if name.startswith("batches/")} == {BATCH_ID}


@pytest.mark.parametrize(("asked_s", "kept"), [(None, True), (3_600, False), (2 * 86_400, True)])
async def test_pieces_of_a_batch_go_when_its_files_have_expired(asked_s: int | None, *, kept: bool) -> None:
    blobs, now_ms = open_blobs(Settings.model_validate({"storage": {"url": "memory:///"}})), int(time.time() * 1000)
    part = {"end": 3, "token": "t", "output_bytes": 1, "error_bytes": 0, "output_lines": 1, "error_lines": 0}
    base = {**row_of(BATCH_ID), "output_expires_s": asked_s, "parts": [part]}
    for state, ended_ms, left in (("in_progress", None, True), ("completed", now_ms - DAY_MS, kept)):
        row: Any = {**base, "state": state, "completed_ms": ended_ms}
        [piece] = segments_of(row, errors=False)
        await blobs.put(b"x", name=piece.name, media_type="x")
        names, _ = await swept(blobs, files=[], batches=[row], now_ms=now_ms)
        assert (piece.name in names) is left


async def test_a_row_is_waited_for_and_a_removed_batch_is_remembered() -> None:
    directory = BatchDirectory(SETTINGS, name="t")
    fresh = row_of(BATCH_ID)
    directory.remember(fresh)
    assert directory.of("acme") == [fresh]
    assert directory.users_of("file-x") == [BATCH_ID]
    waiting = asyncio.create_task(directory.wait_until(BATCH_ID, lambda row: row["state"] == "completed", seconds=30))
    await asyncio.sleep(0)
    for state in ("in_progress", "completed"):
        directory.feed(TP, [consumed(BATCH_ID, BATCH.encode({**fresh, "state": state, "ended": b"\x01"}))])  # type: ignore[typeddict-item]
        await asyncio.sleep(0)
    found = await waiting
    assert found is not None
    assert (found["state"], found["ended"]) == ("completed", b"")
    assert directory.users_of("file-x") == []
    assert await directory.wait_until(BATCH_ID, lambda _: False, seconds=0) == found
    directory.feed(TP, [consumed(BATCH_ID, None)])
    assert directory.removed(BATCH_ID)
    assert (directory.get(BATCH_ID), directory.of("acme")) == (None, [])


async def test_of_many_rows_the_newest_counts_and_strays_are_passed_over() -> None:
    directory = BatchDirectory(SETTINGS, name="t")
    rows = [consumed(BATCH_ID, BATCH.encode({**row_of(BATCH_ID), "completed": number})) for number in range(5)]
    directory.feed(TP, [*rows, consumed(GONE_ID, b"\x00stray")])
    found = directory.get(BATCH_ID)
    assert found is not None
    assert found["completed"] == 4
    assert directory.get(GONE_ID) is None
