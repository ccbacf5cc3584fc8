"""The object store for bodies too large for a record (claim checks): a local folder, or S3, GCS, Azure by URL.

A local write goes to a temporary file and is renamed, so a reader never sees a partial body. It survives a killed
process; like Kafka's log segments it is flushed to disk by the kernel.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from core.errors import ConfigError, HeadraceError, Unavailable
from core.settings.models import Settings
from schemas.common import Blob

INLINE_HASH_BYTES = 1_048_576
"""Hashing more than this would block the event loop for more than a millisecond."""
STAGING_PREFIX = "arriving/"
"""Prefix of uploads that do not belong to a task yet; after an hour they are deleted."""
READ_BYTES = 262_144
LIST_SLICE = 500
LOCAL_PART_BYTES = 262_144
REMOTE_PART_BYTES = 5_242_880
"""Minimum part size of S3. A body in progress needs two parts of memory: one being filled, one being sent."""


class BlobMissing(HeadraceError):
    """The stored body is not in the object store; check its retention rules."""

    code = "body_missing"


class BlobCorrupt(HeadraceError):
    """The stored body differs from the one that was written; check the object store."""

    code = "body_corrupt"


class StoredObject(NamedTuple):
    """One object as the store lists it."""

    name: str
    modified_ms: int


class BlobStore:
    """Stores, reads and deletes bodies; raises Unavailable when the object store does not answer."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._local = Path(store.prefix) if isinstance(store, LocalStore) and store.prefix else None

    async def put(self, data: bytes, *, name: str, media_type: str) -> Blob:
        """Store a body under a given name; replaces an existing one."""
        digest = await _digest(data)
        try:
            await obstore.put_async(self._store, name, data, attributes=self._attributes(media_type))
        except (BaseError, OSError) as error:
            raise _unavailable("write", name, error) from error
        return {"uri": name, "size": len(data), "sha256": digest}

    def writer(self, name: str, *, media_type: str) -> BlobWriter:
        """Return a writer for a body of unknown size: `async with blobs.writer(…) as writer`."""
        part_bytes = LOCAL_PART_BYTES if isinstance(self._store, LocalStore) else REMOTE_PART_BYTES
        file = obstore.open_writer_async(
            self._store,
            name,
            attributes=self._attributes(media_type),
            buffer_size=part_bytes,
            max_concurrency=1,
        )
        return BlobWriter(file, name)

    async def get(self, blob: Blob) -> bytes:
        """Return the body; raises BlobMissing, or BlobCorrupt when size or digest differ."""
        try:
            answer = await obstore.get_async(self._store, blob["uri"])
            data = bytes(await answer.bytes_async())
        except FileNotFoundError as error:
            raise BlobMissing(f"the stored body {blob['uri']} is not in the object store") from error
        except (BaseError, OSError) as error:
            raise _unavailable("read", blob["uri"], error) from error
        if len(data) != blob["size"]:
            raise BlobCorrupt(f"the stored body {blob['uri']} has {len(data)} bytes instead of {blob['size']}")
        if await _digest(data) != blob["sha256"]:
            raise BlobCorrupt(f"the stored body {blob['uri']} does not have the digest it was written with")
        return data

    async def open(self, blob: Blob) -> AsyncGenerator[bytes, None]:
        """Return the body as a stream of chunks; raises BlobMissing, or BlobCorrupt when its size differs.

        The stream raises BlobCorrupt instead of its last chunk when the digest differs, so that a corrupt body is never
        complete.
        """
        try:
            answer = await obstore.get_async(self._store, blob["uri"])
        except FileNotFoundError as error:
            raise BlobMissing(f"the stored body {blob['uri']} is not in the object store") from error
        except (BaseError, OSError) as error:
            raise _unavailable("read", blob["uri"], error) from error
        if answer.meta["size"] != blob["size"]:
            raise BlobCorrupt(
                f"the stored body {blob['uri']} has {answer.meta['size']} bytes instead of {blob['size']}"
            )
        return _checked(answer, blob)

    async def part(self, name: str, begin: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a half-open range of an object.

        Raises BlobMissing, and BlobCorrupt when the object is shorter; the digest of the whole is not checked.
        """
        try:
            answer = await obstore.get_async(self._store, name, options={"range": (begin, end)})
            if answer.meta["size"] < end:
                raise BlobCorrupt(f"the stored body {name} has {answer.meta['size']} bytes instead of {end}")
            async for piece in answer.stream(min_chunk_size=READ_BYTES):
                yield bytes(piece)
        except FileNotFoundError as error:
            raise BlobMissing(f"the stored body {name} is not in the object store") from error
        except (BaseError, OSError) as error:
            raise _unavailable("read", name, error) from error

    async def move(self, blob: Blob, name: str) -> Blob:
        """Rename a body; raises BlobMissing."""
        try:
            await obstore.rename_async(self._store, blob["uri"], name)
        except FileNotFoundError as error:
            raise BlobMissing(f"the stored body {blob['uri']} is not in the object store") from error
        except (BaseError, OSError) as error:
            raise _unavailable("move", blob["uri"], error) from error
        return {**blob, "uri": name}

    async def read(self, name: str) -> bytes:
        """Return a small object by name, without checks; raises BlobMissing."""
        try:
            answer = await obstore.get_async(self._store, name)
            return bytes(await answer.bytes_async())
        except FileNotFoundError as error:
            raise BlobMissing(f"{name} is not in the object store") from error
        except (BaseError, OSError) as error:
            raise _unavailable("read", name, error) from error

    async def delete(self, blob: Blob) -> None:
        """Delete a body; a missing one is not an error."""
        await self.remove(blob["uri"])

    async def remove(self, name: str) -> None:
        """Delete an object by name; a missing one is not an error."""
        try:
            await obstore.delete_async(self._store, name)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise _unavailable("delete", name, error) from error

    async def listed(self, prefix: str) -> AsyncIterator[list[StoredObject]]:
        """Yield all objects below a prefix in batches; concurrent changes may be included or not."""
        try:
            async for batch in obstore.list(self._store, prefix, chunk_size=LIST_SLICE):
                yield [StoredObject(meta["path"], int(meta["last_modified"].timestamp() * 1000)) for meta in batch]
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise _unavailable("list", prefix, error) from error

    async def delete_partial_uploads(self, *, older_s: float) -> int:
        """Delete partial uploads of killed writers; returns their number.

        Only for a local folder, where they are named NAME#N; S3 needs a lifecycle rule for incomplete uploads.
        """
        if self._local is None:
            return 0
        try:
            return await asyncio.to_thread(_delete_partial_uploads, self._local, time.time() - older_s)
        except OSError as error:
            raise _unavailable("tidy", str(self._local), error) from error

    def _attributes(self, media_type: str) -> dict[str, str] | None:
        """Return the attributes of a body; a local file system supports no media type."""
        return None if isinstance(self._store, LocalStore) else {"Content-Type": media_type}


class BlobWriter:
    """An upload in progress; nothing is visible before `finish`, and leaving the block without it aborts."""

    def __init__(self, file: obstore.AsyncWritableFile, name: str) -> None:
        self._file: obstore.AsyncWritableFile | None = file
        self._name = name
        self._digest = sha256()
        self.size = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    async def write(self, data: bytes) -> None:
        """Append bytes, ideally 10 to 1,000 KB; raises Unavailable."""
        assert self._file is not None  # noqa: S101 - written before finish
        self._digest.update(data)
        self.size += len(data)
        try:
            await self._file.write(data)
        except (BaseError, OSError) as error:
            raise _unavailable("write", self._name, error) from error

    async def finish(self) -> Blob:
        """Make the body visible under its name; raises Unavailable."""
        assert self._file is not None  # noqa: S101 - finished once
        try:
            await self._file.close()
        except (BaseError, OSError) as error:
            raise _unavailable("write", self._name, error) from error
        self._file = None
        return {"uri": self._name, "size": self.size, "sha256": self._digest.hexdigest()}

    def abort(self) -> None:
        """Abort the upload unless it is finished: the store removes an unreferenced file."""
        self._file = None


def open_blobs(settings: Settings) -> BlobStore:
    """Open the configured object store; raises ConfigError."""
    if settings.storage.url is None:
        folder = settings.data_dir / "objects"
        try:
            return BlobStore(LocalStore(folder.absolute(), mkdir=True))
        except (BaseError, OSError) as error:
            raise ConfigError(
                f"big bodies cannot be stored in {folder}: {_first_line(error)}; choose another data_dir"
            ) from error
    try:
        return BlobStore(from_url(settings.storage.url))
    except (BaseError, OSError, ValueError) as error:
        raise ConfigError(f"storage.url names no object store that can be used: {_first_line(error)}") from error


async def _checked(answer: obstore.GetResult, blob: Blob) -> AsyncGenerator[bytes, None]:
    digest, held = sha256(), b""
    try:
        async for piece in answer.stream(min_chunk_size=READ_BYTES):
            digest.update(piece)
            if held:
                yield held
            held = bytes(piece)
    except (BaseError, OSError) as error:
        raise _unavailable("read", blob["uri"], error) from error
    if digest.hexdigest() != blob["sha256"]:
        raise BlobCorrupt(f"the stored body {blob['uri']} does not have the digest it was written with")
    if held:
        yield held


def _delete_partial_uploads(folder: Path, before_s: float) -> int:
    count = 0
    for path in folder.rglob("*#[0-9]*"):
        with suppress(FileNotFoundError):  # completed in the meantime
            if path.stat().st_mtime < before_s:
                path.unlink()
                count += 1
    return count


async def _digest(data: bytes) -> str:
    if len(data) <= INLINE_HASH_BYTES:
        return sha256(data).hexdigest()
    return (await asyncio.to_thread(sha256, data)).hexdigest()


def _unavailable(verb: str, name: str, error: Exception) -> Unavailable:
    return Unavailable(f"the object store could not {verb} {name}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    """Return the first line, without the debug output that obstore appends."""
    return str(error).partition("\n")[0]
