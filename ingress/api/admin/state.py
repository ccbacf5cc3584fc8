"""Who works, and what is stuck and why."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.diagnostics.collect import survey
from core.diagnostics.facts import Facts, PullQueueFacts
from core.diagnostics.rules import findings
from ingress.api.admin.fields import answer
from ingress.api.tasks.serialization import moment
from ingress.runtime import NOT_CONNECTED, Ingress
from schemas import topics
from schemas.codec import STATUS, SchemaError, state_of
from schemas.framing import FramingError
from schemas.records import PULL_WORKER, Queue, Status

PAGE = 500
LOOK_ROWS = 50_000
"""Rows of a queue that workers serve which are looked at: half a second."""


class QueueLevelStatus(NamedTuple):
    """What the read model shows of a queue and level that workers serve."""

    queue: str
    level: int
    waiting: int
    oldest_ms: int
    held: list[Status]


class StateRoutes:
    """Workers and doctor of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._looking: asyncio.Task[Facts] | None = None

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/v1/admin/workers", self.workers, methods=["GET"]),
            Route("/v1/admin/doctor", self.doctor, methods=["GET"]),
        ]

    async def workers(self, request: Request) -> Response:
        """List schedulers, dispatchers and the workers that fetch tasks over HTTP."""
        self._ingress.keys.caller(request, "admin")
        now_ms = _now_ms()
        liveness = self._ingress.connected().liveness
        schedulers = [
            {
                "name": name,
                "level": topics.level_name(level),
                "partitions": sorted(heard.partitions),
                "last_heard_at": moment(heard.at_ms),
            }
            for level, name, heard in liveness.schedulers(now_ms)
        ]
        reading = await self._partitions()
        known = liveness.workers(now_ms)
        dispatchers = [
            {
                "name": worker["name"],
                "running": worker["running"],
                "upstreams_up": worker["upstreams_up"],
                "last_heartbeat_at": moment(worker["seen_ms"]),
                "partitions": sum(reading.get(worker["name"], {}).values()),
                "queues": reading.get(worker["name"], {}),
            }
            for worker in known
        ]
        named = {worker["name"] for worker in known}
        others = [{"name": name, "queues": queues} for name, queues in sorted(reading.items()) if name not in named]
        pulling = [one for lane in await self._lanes() for one in _pullers(lane)]
        told = {"schedulers": schedulers, "dispatchers": dispatchers, "other_consumers": others}
        return answer({"object": "workers", **told, "pull_workers": pulling})

    async def doctor(self, request: Request) -> Response:
        """Look for some seconds and say what is stuck, why, and what to do about it."""
        self._ingress.keys.caller(request, "admin")
        if self._looking is None or self._looking.done():
            # All who ask while it looks are given what it finds: a look costs as much as some requests.
            self._looking = asyncio.create_task(self._look(), name="doctor")
        facts = await asyncio.shield(self._looking)
        found = findings(facts)
        healthy = all(one.weight != "problem" for one in found)
        data = [one._asdict() for one in found]
        return answer({"object": "doctor", "healthy": healthy, "watched_s": round(facts.watched_s, 1), "data": data})

    async def _look(self) -> Facts:
        facts = await survey(self._ingress.settings, self._ingress.cluster)
        connected = self._ingress.connection
        if connected is None:
            own = [NOT_CONNECTED]
        else:
            own = connected.unhealthy_reasons()
            facts.pulled = [
                PullQueueFacts(one.queue, one.level, one.waiting, len(one.held), one.oldest_ms)
                for one in await self._lanes()
            ]
            if facts.broker_error is None:  # what this ingress refuses by, tasks that wait for another attempt included
                facts.backlogs = connected.admission.all()
        facts.ingress = own
        return facts

    async def _partitions(self) -> dict[str, dict[str, int]]:
        """Return by consumer how many work partitions of each queue it reads."""
        works = {
            self._ingress.settings.topic(topics.work(queue["name"], level)): (queue["name"], level)
            for queue in self._ingress.connected().queues.all()
            if queue["served_by"] != "workers"
            for level in (0, 1)
        }
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for group, members in (await self._ingress.cluster.members(list(works))).items():
            queue, level = works[group]
            for member in members:
                name = member.client.removesuffix(f"-{queue}-{topics.level_name(level)}")
                found[name][queue] = found[name].get(queue, 0) + len(member.partitions)
        return dict(found)

    async def _lanes(self) -> list[QueueLevelStatus]:
        queues = [one for one in self._ingress.connected().queues.all() if one["served_by"] == "workers"]
        return [await self._lane(queue, level) for queue in queues for level in (0, 1)]

    async def _lane(self, queue: Queue, level: int) -> QueueLevelStatus:
        """Walk over the rows of a queue; most are passed over by their first byte."""
        begin = f"TASK-{queue['number']}-{level}-".encode()
        bound = begin + b"\xff"
        waiting, oldest_ms, seen = 0, _now_ms(), 0
        held: list[Status] = []
        while seen < LOOK_ROWS and (page := self._ingress.connected().view.scan(begin, bound, limit=PAGE)):
            for _, value in page:
                row = _row(value, queue["name"])
                if row is not None and row["state"] == "processing":
                    held.append(row)
                elif row is not None:
                    waiting += 1
                    oldest_ms = min(oldest_ms, row["created_ms"])
            seen += len(page)
            begin = page[-1][0] + b"\x00"
            await asyncio.sleep(0)
        return QueueLevelStatus(queue["name"], level, waiting, max(0, _now_ms() - oldest_ms), held)


def _row(value: bytes, queue: str) -> Status | None:
    if state_of(value) not in ("queued", "processing"):
        return None
    try:
        row = STATUS.decode(value)
    except (FramingError, SchemaError):
        return None
    return row if row["queue"] == queue else None


def _pullers(lane: QueueLevelStatus) -> list[dict[str, Any]]:
    """Sum up what the workers of one ingress hold of a lane: each take of theirs has a name of its own."""
    by_door: dict[str, list[Status]] = defaultdict(list)
    for row in lane.held:
        if (name := row["worker"] or "").startswith(PULL_WORKER):
            by_door[name.rsplit("/", 1)[0]].append(row)
    return [
        {
            "name": name,
            "queue": lane.queue,
            "level": topics.level_name(lane.level),
            "running": len(rows),
            "next_lease_ends_at": _soonest([row["lease_until_ms"] for row in rows]),
        }
        for name, rows in sorted(by_door.items())
    ]


def _soonest(times: list[int | None]) -> str | None:
    known = [at_ms for at_ms in times if at_ms is not None]
    return moment(min(known)) if known else None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
