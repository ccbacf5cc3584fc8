"""The directory of uploaded files: a fold of the files topic, and writes that add or remove a file.

A file is its bytes in the object store under files/ID, and its record. The record is written last and removed first,
so a file exists as a whole or not at all. Every ingress holds the whole directory in memory.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import defaultdict

from aiokafka import TopicPartition

from core.bounded_set import BoundedSet
from core.clock import epoch_ms
from core.errors import Unavailable
from core.kafka.producer import Producer, Record
from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from schemas import topics
from schemas.batches import BatchFile
from schemas.codec import FILE, SchemaError
from schemas.framing import FramingError
from schemas.headers import headers

log = logging.getLogger(__name__)

BLOBS = "files/"
_ID = re.compile(r"file-([0-9a-f]{8})[0-9a-f]{24}")
RECENT_S = 60.0
"""The record of a file that was uploaded this recently may not have reached this process."""
OTHER_WAIT_S = 2.0
MAX_REMOVED = 10_000
"""Removed files that are remembered; only recent ones are looked up."""
VISIBLE_TIMEOUT_S = 5.0
"""How long a write waits until the directory shows it; usually milliseconds."""


def new_file_id(*, now_s: int) -> str:
    """Return an unguessable id; the time in it tells other processes whether the record may not have arrived yet."""
    return f"file-{now_s & 0xFFFFFFFF:08x}{secrets.token_hex(12)}"


def is_recent(file_id: str, *, now_s: float) -> bool:
    """Return whether a file with this id may be so new that other processes have not read its record."""
    match = _ID.fullmatch(file_id)
    return match is not None and abs(now_s - int(match[1], 16)) < RECENT_S


class FileDirectory:
    """All uploaded files; expired ones are not shown."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._topic = settings.topic(topics.FILES)
        self._tp = TopicPartition(self._topic, 0)
        self._files: dict[str, BatchFile] = {}
        self._by_owner: dict[str, set[str]] = defaultdict(set)
        self._removed: BoundedSet[str] = BoundedSet(at_least=MAX_REMOVED)
        self._come = asyncio.Event()
        self.tail = TopicFollower(settings, name=f"{name}-files", topics=[self._topic], handle=self.feed)
        self.read_at: float | None = None

    async def open(self) -> None:
        """Start following the topic; existing records are read in the background."""
        await self.tail.open()

    async def close(self) -> None:
        """Stop reading."""
        await self.tail.close()

    def all(self) -> list[BatchFile]:
        """Return every file, expired ones included."""
        return list(self._files.values())

    def known(self, file_id: str) -> bool:
        """Return whether a file has a record."""
        return file_id in self._files

    def get(self, file_id: str, *, owner: str) -> BatchFile | None:
        """Return a file of a tenant."""
        file = self._files.get(file_id)
        return file if file is not None and file["owner"] == owner and not _over(file) else None

    async def find(self, file_id: str, *, owner: str) -> BatchFile | None:
        """Return a file of a tenant, waiting up to OTHER_WAIT_S for the record of a recent one; raises Unavailable."""
        if file_id not in self._files and file_id not in self._removed and is_recent(file_id, now_s=time.time()):
            try:
                async with asyncio.timeout(OTHER_WAIT_S):
                    while file_id not in self._files and file_id not in self._removed:
                        self._come.clear()
                        await self._come.wait()
            except TimeoutError:
                pass
        self.check_read(file_id)
        return self.get(file_id, owner=owner)

    def check_read(self, file_id: str | None = None) -> None:
        """Raise Unavailable for an unknown file while existing records are still being read."""
        if file_id not in self._files and not self.tail.caught_up:
            raise Unavailable("the files have not been read yet; try again in some seconds")

    def of(self, owner: str) -> list[BatchFile]:
        """Return the files of a tenant, unordered."""
        return [file for name in self._by_owner.get(owner, ()) if not _over(file := self._files[name])]

    async def add(self, producer: Producer, file: BatchFile) -> None:
        """Write the record of a file and return when it is visible here; raises Unavailable."""
        await self._write(producer, file["id"], FILE.encode(file), owner=file["owner"], kind="file")

    async def remove(self, producer: Producer, file: BatchFile) -> None:
        """Remove the record of a file and return when that is visible here; raises Unavailable."""
        await self._write(producer, file["id"], None, owner=file["owner"], kind="file.removed")

    async def wait_for_offset(self, offset: int) -> None:
        """Return when the record at this offset has been folded; bound it with asyncio.timeout."""
        await self.tail.wait_for_offset(self._tp, offset)

    async def _write(self, producer: Producer, file_id: str, value: bytes | None, *, owner: str, kind: str) -> None:
        now_ms = epoch_ms()
        described = headers(kind=kind, ce_id=f"{file_id}/{kind}", at_ms=now_ms, owner=owner)
        offset = await producer.send(self._topic, 0, Record(file_id.encode(), value, described, now_ms))
        try:
            async with asyncio.timeout(VISIBLE_TIMEOUT_S):
                await self.wait_for_offset(offset)
        except TimeoutError:
            log.warning("file %s was written but is not visible here yet", file_id, extra={"event": "file_not_visible"})

    def feed(self, _: TopicPartition, records: Records) -> None:
        """Fold records."""
        for record in records:
            file_id = (record.key or b"").decode(errors="replace")
            before = self._files.pop(file_id, None)
            if before is not None:
                self._by_owner[before["owner"]].discard(file_id)
            if record.value is None:
                self._removed.add(file_id)
                continue
            try:
                file = FILE.decode(record.value)
            except (FramingError, SchemaError):
                continue  # a record of another producer must not stop every process
            self._files[file_id] = file
            self._by_owner[file["owner"]].add(file_id)
        self.read_at = time.monotonic()
        self._come.set()


def _over(file: BatchFile) -> bool:
    return file["expires_ms"] is not None and file["expires_ms"] <= epoch_ms()
