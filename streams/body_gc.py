"""Deletes stored bodies that are no longer needed: lists the object store and checks each body against its task.

Only the scheduler that owns a task's partition decides about its bodies, because only its state record is current. A
sweep has no state, so a crash loses nothing: the next sweep finds what this one missed.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from core.clock import epoch_ms
from core.errors import Unavailable
from core.settings.models import Settings
from core.storage.blobs import STAGING_PREFIX, BlobStore, StoredObject
from schemas import ids, topics
from schemas.codec import STATUS
from schemas.records import TERMINAL, Status
from schemas.topics import level_name
from streams import metrics
from streams.faust.app import StateTable
from streams.state_machine.rows import is_early_cancel

log = logging.getLogger(__name__)

BODY = re.compile(r"(?:tasks|results)/(TASK-[0-9A-Z-]+?)(?:-([0-9]{1,4})-[0-9a-f]{8})?")
UPLOADS = "uploads/"
STAGING_TTL_MS = 3_600_000
"""Retention of uploads in progress, which become a task's body within seconds of their last byte."""
MARGIN_MS = 3_600_000
JITTER = 1.5
"""Upper bound of the jitter of webhook retry delays."""


class BodyName(NamedTuple):
    """The parts of a stored body's name."""

    task_id: str
    level: int
    partition: int
    attempt: int | None
    """Of a response; None for a request."""


def read_name(name: str) -> BodyName | None:
    """Parse the name of a request or response body; None for any other object."""
    found = BODY.fullmatch(name)
    if found is None or (found[2] is not None) != name.startswith("results/"):
        return None
    try:
        task_id = ids.parse(found[1])
    except ids.IdError:
        return None
    return BodyName(found[1], task_id.level, task_id.partition, None if found[2] is None else int(found[2]))


def is_expired(name: BodyName, row: Status | None, *, age_ms: int, unread_ms: int, callback_ms: int) -> bool:
    """Return whether a body is no longer needed.

    Args:
        age_ms: time since the body was written.
        unread_ms: retention of task records; an older body without a state record belongs to no task.
        callback_ms: time during which a response may be sent again as a webhook.
    """
    if row is None or is_early_cancel(row):
        return age_ms > unread_ms
    if row["state"] == "expired":
        delivered = name.attempt == row["attempt"] and row["callback_url"] is not None
        return not delivered or age_ms > callback_ms
    # The outcome of a superseded attempt is ignored.
    superseded = name.attempt is not None and name.attempt < row["attempt"]
    return superseded or (name.attempt is not None and name.attempt != row["attempt"] and row["state"] in TERMINAL)


class BodySweeper:
    """Sweeps the object store for the owned partitions."""

    def __init__(
        self, settings: Settings, level: int, *, blobs: BlobStore, rows: StateTable, partitions: AbstractSet[int]
    ) -> None:
        self._settings = settings
        self._level = level
        self._blobs = blobs
        self._rows = rows
        self._partitions = partitions
        declared = topics.declared(partitions=settings.kafka.partitions)
        retention_ms = next(topic.retention_ms for topic in declared if topic.name == topics.tasks(level))
        self._unread_ms = (retention_ms or 0) + MARGIN_MS
        self._callback_ms = int(sum(settings.webhooks.retry_delays) * JITTER * 1000) + MARGIN_MS

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(self._settings.storage.sweep_s)
            if not self._partitions:
                continue
            try:
                count = await self.sweep(now_ms=epoch_ms())
            except Unavailable as error:
                log.warning(
                    "cannot sweep stored bodies, will retry: %s",
                    error,
                    extra={"event": "body_sweep_failed", "level": self._level},
                )
            else:
                if count:
                    log.info("deleted %d stored bodies", count, extra={"event": "bodies_deleted", "level": self._level})

    async def sweep(self, *, now_ms: int) -> int:
        """Delete expired bodies; returns how many. Raises Unavailable."""
        count = 0
        for prefix in ("tasks", "results"):
            async for batch in self._blobs.listed(prefix):
                count += await self._delete([one.name for one in batch if self._is_expired(one, now_ms)])
        uploads_ms = int(self._settings.dify.upload_retention_s * 1000) + MARGIN_MS
        for prefix, retention_ms in ((STAGING_PREFIX, STAGING_TTL_MS), (UPLOADS, uploads_ms)):
            async for batch in self._blobs.listed(prefix):
                count += await self._delete([one.name for one in batch if now_ms - one.modified_ms > retention_ms])
        return count + await self._blobs.delete_partial_uploads(older_s=STAGING_TTL_MS / 1000)

    def _is_expired(self, stored: StoredObject, now_ms: int) -> bool:
        name = read_name(stored.name)
        # Checked for each body: a state record is current only while its partition is owned.
        if name is None or name.level != self._level or name.partition not in self._partitions:
            return False
        value = self._rows.get(name.partition, name.task_id.encode())
        row = None if value is None else STATUS.decode(value)
        age_ms = now_ms - stored.modified_ms
        return is_expired(name, row, age_ms=age_ms, unread_ms=self._unread_ms, callback_ms=self._callback_ms)

    async def _delete(self, names: list[str]) -> int:
        for name in names:
            await self._blobs.remove(name)
            metrics.BODIES_DELETED.labels(level_name(self._level)).inc()
        await asyncio.sleep(0)
        return len(names)
