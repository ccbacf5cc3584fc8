"""Which schedulers and workers are alive: scheduler heartbeats list the served partitions and the live workers."""

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
"""A scheduler sends a heartbeat every 2 s; without one for this long it counts as stopped."""
NO_DISPATCHER_READY = "no dispatcher has an upstream that takes its calls"
"""Heartbeats do not carry the reason, which need not be the model server."""


class LastSeen(NamedTuple):
    """The last heartbeat of one scheduler."""

    at_ms: int
    partitions: frozenset[int]


class ClusterLiveness:
    """A fold of the heartbeats in the controls topic."""

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
        """Follow the topic from its end: older heartbeats may be of schedulers that have stopped."""
        self._tail = TopicFollower(
            self._settings, name=f"{self._name}-controls", topics=[self._topic], handle=self.feed, start="latest"
        )
        await self._tail.open()

    async def close(self) -> None:
        """Stop following."""
        if self._tail is not None:
            await self._tail.close()

    def feed(self, _: TopicPartition, records: Records) -> None:
        """Apply heartbeats of schedulers."""
        self.read_at = time.monotonic()
        for record in records:
            if record.value is None:
                continue
            try:
                control = CONTROL.decode(record.value)
            except (FramingError, SchemaError):
                continue  # a record of another producer must not stop the process
            if control["kind"] == "pulse":
                self._apply(control)

    def missing(self, now_ms: int) -> list[str]:
        """Return what is missing for tasks to be processed; an empty list means nothing."""
        oldest = now_ms - HEARTBEAT_TIMEOUT_MS
        self._schedulers = {key: seen for key, seen in self._schedulers.items() if seen.at_ms >= oldest}
        self._workers = {name: worker for name, worker in self._workers.items() if worker["seen_ms"] >= oldest}
        lacking = [sentence for level in (0, 1) if (sentence := self._level_problem(level))]
        if not self._workers:
            lacking.append("no heartbeat from a dispatcher in the last 10 s; start one with `headrace dispatcher`")
        elif not any(worker["upstreams_up"] for worker in self._workers.values()):
            lacking.append(NO_DISPATCHER_READY)
        return lacking

    def workers(self, now_ms: int) -> list[Worker]:
        """List the dispatchers with a recent heartbeat, as the schedulers report them."""
        self.missing(now_ms)
        return [self._workers[name] for name in sorted(self._workers)]

    def schedulers(self, now_ms: int) -> list[tuple[int, str, LastSeen]]:
        """List the schedulers with a recent heartbeat: level, name and the last heartbeat."""
        self.missing(now_ms)
        return [(level, name, seen) for (level, name), seen in sorted(self._schedulers.items())]

    def _level_problem(self, level: int) -> str | None:
        name = topics.level_name(level)
        owned = [seen.partitions for (at, _), seen in self._schedulers.items() if at == level]
        if not owned:
            start = f"`headrace streams --level {name}`"
            return f"no heartbeat from the {name} scheduler in the last 10 s; start it with {start}"
        if unowned := sorted(self._partitions.difference(*owned)):
            return f"no {name} scheduler serves partition {', '.join(map(str, unowned))}"
        return None

    def _apply(self, control: Control) -> None:
        key = (control["level"], control["scheduler"] or "")
        known = self._schedulers.get(key)
        if known is None or known.at_ms <= control["at_ms"]:
            self._schedulers[key] = LastSeen(control["at_ms"], frozenset(control["partitions"]))
        for worker in control["workers"]:
            known_worker = self._workers.get(worker["name"])
            if known_worker is None or worker["seen_ms"] >= known_worker["seen_ms"]:
                self._workers[worker["name"]] = worker
