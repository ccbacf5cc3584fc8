"""Whether the whole path works: the schedulers' pulses tell which partitions are served and which workers live."""

from __future__ import annotations

import time
from typing import NamedTuple

from aiokafka import TopicPartition

from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from schemas import topics
from schemas.codec import CONTROL, SchemaError
from schemas.framing import FramingError
from schemas.records import Control, Worker

HEARTBEAT_TIMEOUT_MS = 10_000
"""A scheduler speaks every 2 s; one that is silent this long is taken for gone."""


NO_DISPATCHER_READY = "no dispatcher has an upstream that takes its calls"
"""Dispatchers live; why they take nothing is not said over Kafka: it need not be the model server."""


class LastSeen(NamedTuple):
    """The last word of one scheduler."""

    at_ms: int
    partitions: frozenset[int]


class ClusterLiveness:
    """Fold of what the controls topic says."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._settings = settings
        self._name = name
        self._topic = settings.topic(topics.CONTROLS)
        self._partitions = frozenset(range(settings.kafka.partitions))
        self._schedulers: dict[tuple[int, str], LastSeen] = {}
        self._workers: dict[str, Worker] = {}
        self._tail: TopicFollower | None = None
        self.read_at: float | None = None

    async def open(self) -> None:
        """Listen from now on: what was said before may be the last word of schedulers that are gone."""
        self._tail = TopicFollower(
            self._settings, name=f"{self._name}-controls", topics=[self._topic], handle=self.feed, start="latest"
        )
        await self._tail.open()

    async def close(self) -> None:
        """Stop listening."""
        if self._tail is not None:
            await self._tail.close()

    def feed(self, _: TopicPartition, records: Records) -> None:
        """Take what schedulers said."""
        self.read_at = time.monotonic()
        for record in records:
            if record.value is None:
                continue
            try:
                control = CONTROL.decode(record.value)
            except (FramingError, SchemaError):
                continue  # only schedulers write here; a stray record must not end the process
            if control["kind"] == "pulse":
                self._take(control)

    def missing(self, now_ms: int) -> list[str]:
        """Say in words what the path lacks; an empty list means that it works."""
        oldest = now_ms - HEARTBEAT_TIMEOUT_MS
        self._schedulers = {who: heard for who, heard in self._schedulers.items() if heard.at_ms >= oldest}
        self._workers = {name: heard for name, heard in self._workers.items() if heard["seen_ms"] >= oldest}
        lacking = [sentence for level in (0, 1) if (sentence := self._lane(level))]
        if not self._workers:
            lacking.append("no dispatcher has been heard for 10 s; start one with `headrace dispatcher`")
        elif not any(worker["upstreams_up"] for worker in self._workers.values()):
            lacking.append(NO_DISPATCHER_READY)
        return lacking

    def workers(self, now_ms: int) -> list[Worker]:
        """List the dispatchers that were heard lately, as schedulers tell of them."""
        self.missing(now_ms)
        return [self._workers[name] for name in sorted(self._workers)]

    def schedulers(self, now_ms: int) -> list[tuple[int, str, LastSeen]]:
        """List the schedulers that were heard lately: level, name and what they said last."""
        self.missing(now_ms)
        return [(level, name, heard) for (level, name), heard in sorted(self._schedulers.items())]

    def _lane(self, level: int) -> str | None:
        lane = topics.level_name(level)
        owned = [heard.partitions for (at, _), heard in self._schedulers.items() if at == level]
        if not owned:
            return f"no {lane} scheduler has been heard for 10 s; start one with `headrace streams --level {lane}`"
        if unowned := sorted(self._partitions.difference(*owned)):
            return f"no {lane} scheduler serves partition {', '.join(map(str, unowned))}"
        return None

    def _take(self, control: Control) -> None:
        who = (control["level"], control["scheduler"] or "")
        known = self._schedulers.get(who)
        if known is None or known.at_ms <= control["at_ms"]:
            self._schedulers[who] = LastSeen(control["at_ms"], frozenset(control["partitions"]))
        for worker in control["workers"]:
            known_worker = self._workers.get(worker["name"])
            if known_worker is None or worker["seen_ms"] >= known_worker["seen_ms"]:
                self._workers[worker["name"]] = worker
