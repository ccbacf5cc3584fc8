"""The input file, read in slices."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from obstore.store import LocalStore

from core.storage.blobs import BlobStore
from dispatcher.batches.input_reader import SLICE_BYTES, YIELD_EVERY_BYTES, InputLine, InputReader
from tests.support.batch_doubles import input_file


async def source_of(folder: Path, content: bytes) -> InputReader:
    blobs = BlobStore(LocalStore(folder, mkdir=True))
    return InputReader(blobs, await blobs.put(content, name="files/one", media_type="application/jsonl"))


async def test_others_have_their_turn_while_a_slice_of_blank_lines_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await source_of(tmp_path, b"\n" * SLICE_BYTES)
    split, fair_share, worked = source._splitter.feed, 0, list[int]()

    def feed(piece: bytes) -> list[InputLine]:
        worked.append(fair_share)
        return split(piece)

    monkeypatch.setattr(source._splitter, "feed", feed)
    reading = asyncio.create_task(source.next_lines())
    while not reading.done():
        await asyncio.sleep(0)
        fair_share += 1
    assert await reading == []
    assert len(set(worked)) == len(worked) >= SLICE_BYTES // YIELD_EVERY_BYTES
    source.verify_digest()


async def test_a_file_of_several_slices_has_every_line_once(tmp_path: Path) -> None:
    content = input_file(5_000)
    assert len(content) > 2 * SLICE_BYTES
    source = await source_of(tmp_path, content)
    found = []
    while (lines := await source.next_lines()) is not None:
        found += lines
    assert [line.text for line in found] == content.splitlines()
    assert [line.request for line in found] == list(range(5_000))
    source.verify_digest()
