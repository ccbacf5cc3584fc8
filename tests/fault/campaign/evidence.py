"""What Kafka holds at the end, read from the first offset on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict

from aiokafka import TopicPartition

from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from schemas import topics
from schemas.codec import RESULT, STATUS, USAGE, WORK
from schemas.headers import find
from schemas.records import TERMINAL, Result, Status
from schemas.usage import UsageRecord
from tests.fault.campaign.load import QUEUE

SETTLE_S = 120.0
QUIET_S = 3.0
"""So long nothing may be added before the books are closed: a second outcome would come in this time."""


class Evidence:
    """Results, newest rows, work records, what workers said, and dead letters."""

    def __init__(self, settings: Settings) -> None:
        self.results: dict[str, list[tuple[int, Result]]] = defaultdict(list)
        self.usage: dict[str, list[UsageRecord]] = defaultdict(list)
        self.rows: dict[str, Status] = {}
        self.open_rows: set[str] = set()
        self.work: Counter[tuple[str, int]] = Counter()
        self.letters: Counter[str] = Counter()
        self.spoken_ms: dict[tuple[str, int], int] = {}
        """When a worker first claimed or finished an attempt: a commit tick later it is not taken again."""
        levels = (0, 1)
        names = {
            "results": ([topics.results(level) for level in levels], self._result),
            "rows": ([topics.status(level) for level in levels], self._row),
            "work": ([topics.work(QUEUE, level) for level in levels], self._work),
            "events": ([topics.events(level) for level in levels], self._event),
            "usage": ([topics.USAGE], self._usage),
            "letters": ([topics.DEAD_LETTERS], self._letter),
        }
        self._tails = {
            name: TopicFollower(
                settings, name=f"audit-{name}", topics=[settings.topic(one) for one in several], handle=handle
            )
            for name, (several, handle) in names.items()
        }

    async def read(self, accepted: set[str]) -> bool:
        """Read all; return whether every acknowledged task has its result and every row is final, in bounded time."""
        for tail in self._tails.values():
            await tail.open()
        try:
            async with asyncio.timeout(SETTLE_S):
                await asyncio.gather(*(tail.wait_caught_up() for tail in self._tails.values()))
            return await self._settled(accepted)
        finally:
            for tail in self._tails.values():
                await tail.close()

    async def _settled(self, accepted: set[str]) -> bool:
        give_up = time.monotonic() + SETTLE_S
        quiet_since, before = time.monotonic(), self._positions()
        while time.monotonic() < give_up:
            await asyncio.sleep(0.1)
            if (now := self._positions()) != before:
                quiet_since, before = time.monotonic(), now
            if not self.open_rows and accepted <= self.results.keys() and time.monotonic() - quiet_since > QUIET_S:
                return True
        return False

    def _positions(self) -> list[int]:
        # Events are never quiet: workers beat.
        return [sum(tail.positions.values()) for name, tail in self._tails.items() if name != "events"]

    def _result(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            result = RESULT.decode(record.value or b"")
            self.results[(record.key or b"").decode()].append((record.offset, result))

    def _usage(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            self.usage[(record.key or b"").decode()].append(USAGE.decode(record.value or b""))

    def _row(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            if record.value is None:
                continue
            row = STATUS.decode(record.value)
            self.rows[row["id"]] = row
            if row["state"] in TERMINAL:
                self.open_rows.discard(row["id"])
            else:
                self.open_rows.add(row["id"])

    def _work(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            work = WORK.decode(record.value or b"")
            self.work[work["id"], work["attempt"]] += 1

    def _event(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            kind = (find(record.headers, "ce_type") or b"").rpartition(b".")[2]
            attempt = find(record.headers, "x-attempt")
            if kind in (b"claimed", b"finished") and attempt is not None:
                key = ((record.key or b"").decode(), int(attempt))
                self.spoken_ms[key] = min(record.timestamp, self.spoken_ms.get(key, record.timestamp))

    def _letter(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            self.letters[(find(record.headers, "x-reason") or b"?").decode()] += 1
