"""The object store for bodies too large for a record (claim checks): a local folder, or S3, GCS, Azure by URL.

A local write goes to a file beside and is renamed, so a reader never sees half a body. It outlives the process; like
Kafka's own log segments it reaches the disk when the kernel chooses.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from core.errors import ConfigError, HeadraceError, Unavailable
from core.settings import Settings
from schemas.records import Blob

INLINE_HASH_BYTES = 1_048_576
"""Hashing more than this would hold the event loop for longer than a millisecond."""


class BlobMissing(HeadraceError):
    """The stored body is not in the object store; check its retention rules."""

    code = "body_missing"


class BlobCorrupt(HeadraceError):
    """The stored body is not the one that was written; check the object store."""

    code = "body_corrupt"


class BlobStore:
    """Puts, gets and deletes bodies; an object store that does not answer raises Unavailable."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def put(self, data: bytes, *, name: str, media_type: str) -> Blob:
        """Keep a body under a path of the caller's choice; a second put under the name replaces the first."""
        # The local file system has no place for a media type and refuses one.
        attributes = None if isinstance(self._store, LocalStore) else {"Content-Type": media_type}
        digest = await _digest(data)
        try:
            await obstore.put_async(self._store, name, data, attributes=attributes)
        except (BaseError, OSError) as error:
            raise _unavailable("write", name, error) from error
        return {"uri": name, "size": len(data), "sha256": digest}

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

    async def delete(self, blob: Blob) -> None:
        """Remove a body; one that is not there is removed already."""
        try:
            await obstore.delete_async(self._store, blob["uri"])
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise _unavailable("delete", blob["uri"], error) from error


def open_blobs(settings: Settings) -> BlobStore:
    """Open the configured object store; raises ConfigError."""
    if settings.storage.url is None:
        folder = settings.data_dir / "objects"
        try:
            return BlobStore(LocalStore(folder.absolute(), mkdir=True))
        except (BaseError, OSError) as error:
            raise ConfigError(
                f"big bodies cannot be kept in {folder}: {_first_line(error)}; choose another data_dir"
            ) from error
    try:
        return BlobStore(from_url(settings.storage.url))
    except (BaseError, OSError, ValueError) as error:
        raise ConfigError(f"storage.url names no object store that can be used: {_first_line(error)}") from error


async def _digest(data: bytes) -> str:
    if len(data) <= INLINE_HASH_BYTES:
        return sha256(data).hexdigest()
    return (await asyncio.to_thread(sha256, data)).hexdigest()


def _unavailable(verb: str, name: str, error: Exception) -> Unavailable:
    return Unavailable(f"the object store could not {verb} {name}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    """Leave out the debug structure that obstore appends."""
    return str(error).partition("\n")[0]
