"""The index of batches, built from their topic."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from core.settings.models import Settings
from dispatcher.batches.index import BatchIndex
from schemas import bitmap
from schemas.batches import Batch
from schemas.codec import BATCH
from schemas.ids import batch_line_id
from tests.support.batch_doubles import BATCH as IDENTITY
from tests.support.batch_doubles import HOME, batch_row

BLOB: Any = {"uri": "files/1", "size": 1, "sha256": ""}
PART = {"end": 9, "token": "t", "output_bytes": 5, "error_bytes": 0, "output_lines": 1, "error_lines": 0}


def told(rows: BatchIndex, *batches: Batch | None) -> None:
    """Apply rows of the topic."""
    records: list[Any] = [
        SimpleNamespace(key=IDENTITY.batch().encode(), value=None if row is None else BATCH.encode(row))
        for row in batches
    ]
    rows.apply(TopicPartition("batches", HOME), records)


def line(number: int) -> str:
    return str(batch_line_id(IDENTITY, number, queue_number=7, stamp_s=1_795_000_000))


def test_the_newest_row_of_an_open_batch_is_known_to_its_home() -> None:
    rows, changes = BatchIndex(Settings(), name="t"), list[int]()
    rows.on_change = changes.append
    told(rows, batch_row(BLOB), batch_row(BLOB, state="in_progress", total=3))
    assert [row["total"] for row in rows.open_batches(HOME)] == [3]
    assert rows.open_batches(HOME + 1) == []
    assert changes == [HOME]
    told(rows, batch_row(BLOB, state="failed"))
    assert rows.get(HOME, IDENTITY.batch()) is None


def test_a_line_has_its_outcome_when_its_bit_is_set_or_its_batch_is_over() -> None:
    rows = BatchIndex(Settings(), name="t")
    told(rows, batch_row(BLOB, state="in_progress", ended=bitmap.of([1])))
    assert [rows.has_outcome(line(number)) for number in range(3)] == [False, True, False]
    assert not rows.has_outcome(line(1).replace("-P-", "-C-"))
    assert not rows.has_outcome(str(batch_line_id(IDENTITY, 1, queue_number=7, stamp_s=1_795_000_001)))
    told(rows, batch_row(BLOB, state="cancelled"))
    assert rows.has_outcome(line(2))


def test_pieces_are_tidied_when_a_batch_ends_and_when_it_is_removed() -> None:
    rows = BatchIndex(Settings(), name="t")
    told(rows, batch_row(BLOB, state="completed", parts=[PART], updated_ms=5))
    assert rows.ended(HOME) == {}  # long ago: collected by its owner
    told(rows, batch_row(BLOB, state="completed", parts=[PART], updated_ms=time.time_ns() // 1_000_000))
    assert rows.ended(HOME) == {IDENTITY.batch(): {f"batches/{IDENTITY.batch()}/output/000000000009-t"}}
    told(rows, None)
    assert rows.ended(HOME) == {IDENTITY.batch(): frozenset()}
