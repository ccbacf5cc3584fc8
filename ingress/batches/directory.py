"""The batches of all tenants: the newest row of each, folded from the batches topic, without its bitmaps.

In memory, because there are few: a row has some hundred bytes plus one hundred per segment of its files. A batch that
was created here is visible immediately, as it was proposed.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable

from aiokafka import TopicPartition

from core.bounded_set import BoundedSet
from core.errors import Unavailable
from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from schemas import topics
from schemas.batches import BATCH_ENDED, Batch
from schemas.codec import BATCH, SchemaError
from schemas.framing import FramingError

MAX_PROPOSED = 10_000
"""Batches created here without a row of the scheduler yet; usually for milliseconds."""
MAX_REMOVED = 10_000


class BatchDirectory:
    """All batches by id."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._rows: dict[str, Batch] = {}
        self._by_owner: dict[str, set[str]] = defaultdict(set)
        self._proposed: OrderedDict[str, Batch] = OrderedDict()
        self._removed: BoundedSet[str] = BoundedSet(at_least=MAX_REMOVED)
        self._awaited: dict[str, set[asyncio.Future[None]]] = {}
        topic = settings.topic(topics.BATCHES)
        self.tail = TopicFollower(settings, name=f"{name}-batches", topics=[topic], handle=self.feed)
        self.read_at: float | None = None

    async def open(self) -> None:
        """Start following the topic; existing rows are read in the background."""
        await self.tail.open()

    async def close(self) -> None:
        """Stop reading."""
        await self.tail.close()

    def get(self, batch_id: str) -> Batch | None:
        """Return a batch in its present state."""
        return self._rows.get(batch_id) or self._proposed.get(batch_id)

    def removed(self, batch_id: str) -> bool:
        """Return whether a batch was removed recently."""
        return batch_id in self._removed

    def check_read(self) -> None:
        """Raise Unavailable while existing batches are still being read."""
        if not self.tail.caught_up:
            raise Unavailable("the batches have not been read yet; try again in some seconds")

    def remember(self, batch: Batch) -> None:
        """Show a batch that was created here."""
        if batch["id"] not in self._rows:
            self._proposed[batch["id"]] = batch
            if len(self._proposed) > MAX_PROPOSED:
                self._proposed.popitem(last=False)

    def of(self, owner: str) -> list[Batch]:
        """Return the batches of a tenant, newest first."""
        found = [self._rows[batch_id] for batch_id in self._by_owner.get(owner, ())]
        found += [batch for batch in self._proposed.values() if batch["owner"] == owner]
        return sorted(found, key=lambda batch: (batch["created_ms"], batch["id"]), reverse=True)

    def users_of(self, file_id: str) -> list[str]:
        """Return the ids of the batches that still need an input file."""
        both = (*self._rows.values(), *self._proposed.values())
        return [one["id"] for one in both if one["input_file_id"] == file_id and one["state"] not in BATCH_ENDED]

    async def wait_until(self, batch_id: str, wanted: Callable[[Batch], bool], *, seconds: float) -> Batch | None:
        """Return the scheduler's row of a batch once `wanted` accepts it, or the present row when the time is over."""
        try:
            async with asyncio.timeout(seconds):
                while (row := self._rows.get(batch_id)) is None or not wanted(row):
                    await self._changed(batch_id)
                return row
        except TimeoutError:
            return self._rows.get(batch_id)

    async def _changed(self, batch_id: str) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._awaited.setdefault(batch_id, set())
        waiting.add(future)
        try:
            await future
        finally:
            waiting.discard(future)
            if not waiting:
                self._awaited.pop(batch_id, None)

    def feed(self, _: TopicPartition, records: Records) -> None:
        """Apply records; of several rows of one batch only the newest is decoded: a running batch writes many."""
        newest = {(record.key or b"").decode(errors="replace"): record.value for record in records}
        for batch_id, value in newest.items():
            if value is None:
                self._forget(batch_id)
            else:
                self._fold(batch_id, value)
            for future in self._awaited.get(batch_id, ()):
                if not future.done():
                    future.set_result(None)
        self.read_at = time.monotonic()

    def _fold(self, batch_id: str, value: bytes) -> None:
        try:
            row = BATCH.decode(value)
        except (FramingError, SchemaError):
            return  # a record of another producer must not stop every process
        row["ended"] = row["written"] = b""
        self._rows[batch_id] = row
        self._by_owner[row["owner"]].add(batch_id)
        self._proposed.pop(batch_id, None)
        self._removed.discard(batch_id)

    def _forget(self, batch_id: str) -> None:
        row = self._rows.pop(batch_id, None)
        if row is not None:
            self._by_owner[row["owner"]].discard(batch_id)
        self._proposed.pop(batch_id, None)
        self._removed.add(batch_id)
