"""The readiness check: what stops tasks on their way from this process to a model, by its root cause.

Schedulers and dispatchers are known by their heartbeats over Kafka. Missing heartbeats alone do not name the cause: a
missing topic or a broker that does not answer stops all of them. Topics are also checked
now and then while the path works: not every missing topic stops a role.
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
from core.kafka.admin import declared_topics
from core.kafka.partition_counts import differing, warnings, wrong_setting
from core.kafka.work_topics import work_topics
from ingress.read_model.cluster_liveness import NO_DISPATCHER_READY
from ingress.runtime import Ingress

PROBE_TIMEOUT_S = 3.0
"""Time-out of listing the topics."""
CACHE_S = 3.0
"""How long the list of topics is cached; the endpoint is open and may be called often."""
READY_CACHE_S = 20.0
"""The same while the path works."""
MAX_NAMED = 3


class Readiness:
    """Collects the reasons why this process is not ready."""

    def __init__(self, ingress: Ingress, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ingress = ingress
        self._clock = clock
        self._looking = asyncio.Lock()
        self._looked_at = -math.inf
        self._looked_while_ready = False
        self._wrong: list[str] | None = []

    async def missing(self) -> list[str]:
        """Return the reasons; an empty list means ready."""
        ingress, kafka = self._ingress, f"Kafka at {self._ingress.settings.kafka.bootstrap}"
        connected = ingress.connection
        if connected is None:
            return [await self._opening(kafka) if ingress.broker_reached else f"{kafka} has not been reached yet"]
        own, path = connected.unhealthy_reasons(), connected.liveness.missing(epoch_ms())
        if not own and not path:
            return []
        topics = await self._look(max_age_s=CACHE_S)
        if topics is None:  # then no heartbeat arrives, whether or not the other roles work
            return [f"{kafka} does not answer", *own]
        return [*topics, *own, *[await self._idle() if one == NO_DISPATCHER_READY else one for one in path]]

    async def warnings(self) -> list[str]:
        """Return what is wrong with topics while the path works: some streams, webhooks or tasks may not pass."""
        return await self._look(max_age_s=READY_CACHE_S, ready=True) or []

    async def _opening(self, kafka: str) -> str:
        topics = await self._look(max_age_s=CACHE_S)
        if topics is None:
            return f"{kafka} was reached, and does not answer now"
        if topics:
            return f"{kafka} was reached; {topics[0]}"
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

    async def _look(self, *, max_age_s: float, ready: bool = False) -> list[str] | None:
        """Return what is wrong with the topics, cached for at most a time; None when no broker answers."""
        async with self._looking:
            # What was found while the path was broken, as before the topics were created, says nothing once it works.
            outdated = ready and not self._looked_while_ready
            if outdated or self._clock() - self._looked_at >= max_age_s:
                self._wrong = None
                with suppress(Unavailable, KafkaError, OSError, TimeoutError):
                    async with asyncio.timeout(PROBE_TIMEOUT_S):
                        self._wrong = await self._topics()
                self._looked_at, self._looked_while_ready = self._clock(), ready
            return self._wrong

    async def _topics(self) -> list[str]:
        settings, connected = self._ingress.settings, self._ingress.connection
        wanted = declared_topics(settings)
        work = work_topics(settings, () if connected is None else connected.queues.all())
        there = await self._ingress.cluster.topics([*wanted, *work])
        if wrong := wrong_setting(wanted, there, partitions=settings.kafka.partitions):
            return [wrong]
        absent = [name for name in (*wanted, *work) if name not in there]
        return [*([_absent(absent)] if absent else []), *warnings(differing(wanted | work, there))]


def _absent(names: Sequence[str]) -> str:
    """Return the sentence about missing topics."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"there is no topic {', '.join(names[:MAX_NAMED])}{more}; run `headrace topics apply`"
