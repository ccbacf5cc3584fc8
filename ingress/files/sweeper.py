"""Delete stored objects that are no longer needed: expired files, bytes without a record, segments of removed batches
and of batches whose files have expired.

Every ingress sweeps; deleting an object twice is harmless. Segments that an unfinished batch does not refer to are
deleted by its writer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from core.clock import epoch_ms
from core.errors import HeadraceError
from core.kafka.producer import Producer
from core.storage.blobs import BlobStore, StoredObject
from ingress.batches.directory import BatchDirectory
from ingress.files.directory import BLOBS, FileDirectory
from schemas.batches import SEGMENT_PREFIX, outputs_expired

log = logging.getLogger(__name__)

ORPHAN_TTL_MS = 3_600_000
"""The record of a file is written within seconds of its last byte; an hour exceeds any clock skew."""
SEGMENT_TTL_MS = 86_400_000
"""A segment is written only while its batch has a row; this process is never a day behind the rows."""


class FileSweeper:
    """Deletes unneeded objects for one ingress."""

    def __init__(
        self,
        *,
        blobs: BlobStore,
        producer: Producer,
        files: FileDirectory,
        batches: BatchDirectory,
        sweep_s: float,
        ends_read: Callable[[], Awaitable[None]],
    ) -> None:
        """`ends_read` returns when both directories have read all that is in their topics now; raises Unavailable."""
        self._blobs = blobs
        self._producer = producer
        self._files = files
        self._batches = batches
        self._sweep_s = sweep_s
        self._ends_read = ends_read

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(self._sweep_s)
            try:
                count = await self.sweep(now_ms=epoch_ms())
            except (HeadraceError, TimeoutError) as error:
                log.warning("cannot sweep stored files: %s", error, extra={"event": "sweep_failed"})
            else:
                if count:
                    log.info("deleted %d stored files and segments", count, extra={"event": "files_deleted"})

    async def sweep(self, *, now_ms: int) -> int:
        """Delete unneeded objects and return how many. Raises Unavailable, and TimeoutError when Kafka is too slow."""
        await self._ends_read()
        count = 0
        for file in self._files.all():
            over = file["expires_ms"] is not None and file["expires_ms"] <= now_ms
            if over and not self._batches.users_of(file["id"]):
                await self._blobs.delete(file["blob"])
                await self._files.remove(self._producer, file)
                count += 1
        for prefix, is_over in ((BLOBS, self._orphan), (SEGMENT_PREFIX, self._abandoned)):
            async for batch in self._blobs.listed(prefix):
                for stored in batch:
                    if is_over(stored, now_ms):
                        await self._blobs.remove(stored.name)
                        count += 1
                await asyncio.sleep(0)
        return count

    def _orphan(self, stored: StoredObject, now_ms: int) -> bool:
        file_id = stored.name.removeprefix(BLOBS)
        used = self._files.known(file_id) or self._batches.users_of(file_id)
        return now_ms - stored.modified_ms > ORPHAN_TTL_MS and not used

    def _abandoned(self, stored: StoredObject, now_ms: int) -> bool:
        batch = self._batches.get(stored.name.removeprefix(SEGMENT_PREFIX).partition("/")[0])
        if batch is None:
            return now_ms - stored.modified_ms > SEGMENT_TTL_MS
        return outputs_expired(batch, now_ms=now_ms)
