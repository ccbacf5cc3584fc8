"""The readiness check: what stops tasks on their way from this process to a model, by its root cause.

Schedulers and dispatchers are known by their heartbeats over Kafka. Missing heartbeats alone do not name the cause: a
missing topic or a broker that does not answer stops all of them. Only then the topics are looked up.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from aiokafka.errors import KafkaError

from core.clock import epoch_ms
from core.errors import Unavailable
from ingress.read_model.cluster_liveness import NO_DISPATCHER_READY
from ingress.runtime import Ingress
from schemas import topics

PROBE_TIMEOUT_S = 3.0
"""Time-out of listing the topics."""
CACHE_S = 3.0
"""How long the list of topics is cached; the endpoint is open and may be called often."""
MAX_NAMED = 3


class Readiness:
    """Collects the reasons why this process is not ready."""

    def __init__(self, ingress: Ingress, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ingress = ingress
        self._clock = clock
        self._looking = asyncio.Lock()
        self._looked_at = -math.inf
        self._absent: list[str] | None = []

    async def missing(self) -> list[str]:
        """Return the reasons; an empty list means ready."""
        ingress, kafka = self._ingress, f"Kafka at {self._ingress.settings.kafka.bootstrap}"
        connected = ingress.connection
        if connected is None:
            return [await self._opening(kafka) if ingress.broker_reached else f"{kafka} has not been reached yet"]
        own, path = connected.unhealthy_reasons(), connected.liveness.missing(epoch_ms())
        if not own and not path:
            return []
        absent = await self._look()
        if absent is None:  # then no heartbeat arrives, whether or not the other roles work
            return [f"{kafka} does not answer", *own]
        topics_missing = [_absent(absent)] if absent else []
        return [*topics_missing, *own, *[await self._idle() if one == NO_DISPATCHER_READY else one for one in path]]

    async def _opening(self, kafka: str) -> str:
        absent = await self._look()
        if absent is None:
            return f"{kafka} was reached, and does not answer now"
        if absent:
            return f"{kafka} was reached; {_absent(absent)}"
        return f"{kafka} was reached; what it holds is still being read"

    async def _idle(self) -> str:
        """Return why the live dispatchers take no calls, as far as this process can see."""
        catalog = self._ingress.model_catalog
        await catalog.refresh()
        troubles = catalog.problems()
        listed = "; ".join(f"{base} {trouble}" for base, trouble in troubles.items() if trouble)
        if all(troubles.values()):
            return f"no upstream model server answers: {listed}"
        answering = ", ".join(base for base, trouble in troubles.items() if not trouble)
        return (
            f"{NO_DISPATCHER_READY}, although this process gets answers of {answering}: "
            "it has not joined the groups of its queues, or cannot call the server itself; its own /readyz tells which"
        )

    async def _look(self) -> list[str] | None:
        """Return the missing topics; None when no broker answers."""
        async with self._looking:
            if self._clock() - self._looked_at >= CACHE_S:
                self._absent = None
                with suppress(Unavailable, KafkaError, OSError, TimeoutError):
                    async with asyncio.timeout(PROBE_TIMEOUT_S):
                        names = self._names()
                        there = await self._ingress.cluster.topics(names)
                        self._absent = [name for name in names if name not in there]
                self._looked_at = self._clock()
            return self._absent

    def _names(self) -> list[str]:
        settings, connected = self._ingress.settings, self._ingress.connection
        declared = [topic.name for topic in topics.declared(partitions=settings.kafka.partitions)]
        work = [
            topics.work(queue["name"], level)
            for queue in (() if connected is None else connected.queues.all())
            if queue["served_by"] != "workers"
            for level in range(len(topics.LEVELS))
        ]
        return [settings.topic(name) for name in (*declared, *work)]


def _absent(names: Sequence[str]) -> str:
    """Return the sentence about missing topics."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"there is no topic {', '.join(names[:MAX_NAMED])}{more}; run `headrace topics apply`"
