from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from core.errors import ConfigError, Unavailable
from core.settings.loader import load_settings
from core.storage.blobs import INLINE_HASH_BYTES, BlobCorrupt, BlobMissing, BlobStore, open_blobs
from schemas.common import Blob
from tests.support.waiting import eventually_async

JSON = "application/json"


@pytest.fixture(params=["default folder", "file URL", "memory"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    if request.param == "memory":
        yield open_blobs(load_settings(environ={"HEADRACE_STORAGE_URL": "memory:///"}))
    elif request.param == "file URL":
        (tmp_path / "store").mkdir()
        yield open_blobs(load_settings(environ={"HEADRACE_STORAGE_URL": f"file://{tmp_path}/store"}))
    else:
        yield open_blobs(load_settings(environ={"HEADRACE_DATA_DIR": str(tmp_path / "data")}))


@pytest.mark.parametrize("size", [0, 1, 300_000, INLINE_HASH_BYTES + 1, 12_000_000])
async def test_what_was_put_is_got(blobs: BlobStore, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    blob = await blobs.put(data[:size], name="tasks/TASK-1", media_type=JSON)
    assert (blob["uri"], blob["size"]) == ("tasks/TASK-1", size)
    assert await blobs.get(blob) == data[:size]


async def test_a_second_put_replaces_the_first(blobs: BlobStore) -> None:
    first = await blobs.put(b"first", name="one", media_type=JSON)
    second = await blobs.put(b"second", name="one", media_type=JSON)
    assert await blobs.get(second) == b"second"
    with pytest.raises(BlobCorrupt, match="6 bytes instead of 5"):
        await blobs.get(first)


async def test_equal_size_but_other_bytes_are_noticed(blobs: BlobStore) -> None:
    first = await blobs.put(b"first", name="one", media_type=JSON)
    await blobs.put(b"other", name="one", media_type=JSON)
    with pytest.raises(BlobCorrupt, match="digest"):
        await blobs.get(first)


async def test_an_object_is_read_by_its_name_alone(blobs: BlobStore) -> None:
    await blobs.put(b"{}", name="a/b.json", media_type=JSON)
    assert await blobs.read("a/b.json") == b"{}"
    with pytest.raises(BlobMissing, match=r"a/c\.json"):
        await blobs.read("a/c.json")


async def test_a_deleted_body_is_missing_and_may_be_deleted_again(blobs: BlobStore) -> None:
    blob = await blobs.put(b"x", name="a/b/c", media_type=JSON)
    await blobs.delete(blob)
    await blobs.delete(blob)
    with pytest.raises(BlobMissing, match="a/b/c"):
        await blobs.get(blob)


async def test_a_path_cannot_leave_the_store(blobs: BlobStore) -> None:
    with pytest.raises(ValueError, match=r"\.\."):
        await blobs.put(b"x", name="../outside", media_type=JSON)


async def test_parallel_puts_of_one_name_leave_one_whole_body(tmp_path: Path) -> None:
    blobs = open_blobs(load_settings(environ={"HEADRACE_DATA_DIR": str(tmp_path)}))
    bodies = [bytes([n]) * 400_000 for n in range(8)]
    put = await asyncio.gather(*(blobs.put(body, name="one", media_type=JSON) for body in bodies))
    found = (tmp_path / "objects" / "one").read_bytes()
    assert found in bodies
    assert await blobs.get(put[bodies.index(found)]) == found
    assert [path.name for path in (tmp_path / "objects").iterdir()] == ["one"]


async def test_the_media_type_is_stored_if_the_store_supports_it() -> None:
    store = MemoryStore()
    await BlobStore(store).put(b"{}", name="one", media_type=JSON)
    assert (await obstore.get_async(store, "one")).attributes["Content-Type"] == JSON


async def test_a_store_that_fails_is_unavailable(tmp_path: Path) -> None:
    blobs = open_blobs(load_settings(environ={"HEADRACE_DATA_DIR": str(tmp_path)}))
    (tmp_path / "objects" / "taken").write_bytes(b"a file where a folder is needed")
    with pytest.raises(Unavailable, match=r"could not write taken/body: [^\n]+$"):
        await blobs.put(b"x", name="taken/body", media_type=JSON)


def test_a_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(ConfigError, match="choose another data_dir"):
        open_blobs(load_settings(environ={"HEADRACE_DATA_DIR": str(tmp_path / "data")}))


@pytest.mark.parametrize("url", ["nothing", "blah://bucket/prefix"])
def test_an_unknown_store_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match=r"storage\.url"):
        open_blobs(load_settings(environ={"HEADRACE_STORAGE_URL": url}))


async def streamed(blobs: BlobStore, blob: Blob) -> bytes:
    return b"".join([piece async for piece in await blobs.open(blob)])


@pytest.mark.parametrize("sizes", [[], [1], [300_000] * 5, [70_000] * 180])
async def test_what_was_written_in_pieces_is_read_in_pieces(blobs: BlobStore, sizes: list[int]) -> None:
    pieces = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    async with blobs.writer("tasks/TASK-1", media_type=JSON) as writer:
        for piece in pieces:
            await writer.write(piece)
        blob = await writer.finish()
    assert blob["size"] == sum(sizes)
    assert await blobs.get(blob) == await streamed(blobs, blob) == b"".join(pieces)


async def test_an_unfinished_body_leaves_nothing(blobs: BlobStore) -> None:
    async def fail() -> None:
        async with blobs.writer("tasks/TASK-1", media_type=JSON) as writer:
            for _ in range(40):
                await writer.write(b"x" * 100_000)
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the one from above
        await fail()
    assert [stored async for batch in blobs.listed("tasks") for stored in batch] == []


async def test_an_unfinished_body_leaves_no_file(tmp_path: Path) -> None:
    blobs = open_blobs(load_settings(environ={"HEADRACE_DATA_DIR": str(tmp_path)}))
    async with blobs.writer("tasks/TASK-1", media_type=JSON) as writer:
        for _ in range(40):
            await writer.write(b"x" * 100_000)
        assert list((tmp_path / "objects" / "tasks").iterdir())
    await eventually_async(lambda: not list((tmp_path / "objects" / "tasks").iterdir()), what="no files")


async def test_a_stream_of_wrong_bytes_never_becomes_whole(blobs: BlobStore) -> None:
    blob = await blobs.put(b"a" * 900_000, name="one", media_type=JSON)
    await blobs.put(b"a" * 899_999 + b"b", name="one", media_type=JSON)
    got = bytearray()

    async def read() -> None:
        async for piece in await blobs.open(blob):
            got.extend(piece)

    with pytest.raises(BlobCorrupt, match="digest"):
        await read()
    assert len(got) < 900_000
    with pytest.raises(BlobCorrupt, match="bytes instead of"):
        await blobs.open({**blob, "size": 1})
    await blobs.delete(blob)
    with pytest.raises(BlobMissing):
        await blobs.open(blob)


async def test_a_moved_body_has_its_new_name_only(blobs: BlobStore) -> None:
    blob = await blobs.put(b"x", name="uploads/1", media_type=JSON)
    moved = await blobs.move(blob, "tasks/1")
    assert await blobs.get(moved) == b"x"
    assert [stored.name async for batch in blobs.listed("uploads") for stored in batch] == []
    with pytest.raises(BlobMissing):
        await blobs.move(blob, "tasks/2")


async def test_the_list_says_when_a_body_was_written(blobs: BlobStore) -> None:
    names = {f"tasks/{number}" for number in range(1_200)}
    for name in names:
        await blobs.put(b"x", name=name, media_type=JSON)
    await blobs.put(b"x", name="results/1", media_type=JSON)
    found = [stored async for batch in blobs.listed("tasks") for stored in batch]
    assert {stored.name for stored in found} == names
    assert all(abs(stored.modified_ms / 1000 - time.time()) < 60 for stored in found)


async def test_what_a_killed_writer_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    blobs = open_blobs(load_settings(environ={"HEADRACE_DATA_DIR": str(tmp_path)}))
    blob = await blobs.put(b"x", name="tasks/1", media_type=JSON)
    torso = tmp_path / "objects" / "tasks" / "2#1"
    torso.write_bytes(b"half")
    assert await blobs.delete_partial_uploads(older_s=3600) == 0
    assert await blobs.delete_partial_uploads(older_s=-1) == 1
    assert not torso.exists()
    assert await blobs.get(blob) == b"x"
