from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from core.blobs import INLINE_HASH_BYTES, BlobCorrupt, BlobMissing, BlobStore, open_blobs
from core.config import load_settings
from core.errors import ConfigError, Unavailable

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


async def test_the_media_type_is_kept_where_the_store_can() -> None:
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
