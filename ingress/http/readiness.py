"""What keeps the path from here to a model from working, by its true cause.

Schedulers and dispatchers are known by what they say over Kafka, so their silence alone tells little: a topic that is
not there, or a broker that does not answer, silences them all. What they do not say is looked up, here and only then.
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
"""What a look at the topics may take."""
CACHE_S = 3.0
"""For how long it counts: everybody may ask, and as often as they like."""
MAX_NAMED = 3


class Readiness:
    """Say in words what is missing."""

    def __init__(self, ingress: Ingress, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ingress = ingress
        self._clock = clock
        self._looking = asyncio.Lock()
        self._looked_at = -math.inf
        self._absent: list[str] | None = []

    async def missing(self) -> list[str]:
        """Return what the path lacks; an empty list means ready."""
        ingress, kafka = self._ingress, f"Kafka at {self._ingress.settings.kafka.bootstrap}"
        connected = ingress.connection
        if connected is None:
            return [await self._opening(kafka) if ingress.broker_reached else f"{kafka} has not been reached yet"]
        own, heard = connected.unhealthy_reasons(), connected.liveness.missing(epoch_ms())
        if not own and not heard:
            return []
        absent = await self._look()
        if absent is None:  # then nobody can be heard, whether or not they work
            return [f"{kafka} does not answer", *own]
        told = [_absent(absent)] if absent else []
        return [*told, *own, *[await self._idle() if one == NO_DISPATCHER_READY else one for one in heard]]

    async def _opening(self, kafka: str) -> str:
        absent = await self._look()
        if absent is None:
            return f"{kafka} was reached, and does not answer now"
        if absent:
            return f"{kafka} was reached; {_absent(absent)}"
        return f"{kafka} was reached; what it holds is still being read"

    async def _idle(self) -> str:
        """Say why dispatchers that live take no calls, as far as that can be seen from here."""
        catalog = self._ingress.model_catalog
        await catalog.refresh()
        troubles = catalog.problems()
        told = "; ".join(f"{base} {trouble}" for base, trouble in troubles.items() if trouble)
        if all(troubles.values()):
            return f"no upstream model server answers: {told}"
        answering = ", ".join(base for base, trouble in troubles.items() if not trouble)
        return (
            f"{NO_DISPATCHER_READY}, although this process gets answers of {answering}: "
            "it has not joined the groups of its queues, or cannot call the server itself; its own /readyz tells which"
        )

    async def _look(self) -> list[str] | None:
        """Return the topics that are not there; None when no broker answers."""
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
    """Say which topics are not there."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"there is no topic {', '.join(names[:MAX_NAMED])}{more}; run `headrace topics apply`"
