from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from core.storage.blobs import BlobStore
from core.storage.spool import WRITE_BYTES, Spool

INLINE = 5_000
DATA = bytes(range(256)) * (WRITE_BYTES // 256 * 2)


def spool() -> tuple[Spool, BlobStore]:
    blobs = BlobStore(MemoryStore())
    return Spool(lambda: blobs.writer("one", media_type="text/plain"), inline_bytes=INLINE), blobs


async def names(blobs: BlobStore) -> list[str]:
    return [one.name async for batch in blobs.listed("") for one in batch]


@given(
    st.sampled_from([0, 1, INLINE, INLINE + 1, WRITE_BYTES, len(DATA)]), st.lists(st.integers(0, len(DATA)), max_size=9)
)
def test_any_split_gives_the_same_body(size: int, cuts: list[int]) -> None:
    async def play() -> None:
        made, blobs = spool()
        ends = [0, *sorted(cut for cut in cuts if cut < size), size]
        for begin, end in pairwise(ends):
            await made.write(DATA[begin:end])
        assert made.size == size
        kept = await made.finish()
        made.discard()
        if size <= INLINE:
            assert kept == (DATA[:size], None)
            assert await names(blobs) == []
        else:
            assert kept.data is None
            assert kept.data_ref is not None
            assert await blobs.get(kept.data_ref) == DATA[:size]

    asyncio.run(play())


@pytest.mark.parametrize("size", [10, INLINE + 1, len(DATA)])
async def test_what_is_dropped_is_nowhere(size: int) -> None:
    made, blobs = spool()
    await made.write(DATA[:size])
    assert made.text == (DATA[:size] if size <= INLINE else None)
    made.discard()
    assert await names(blobs) == []
