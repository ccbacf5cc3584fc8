"""Workers, and the doctor, for administrators."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Annotated, Any, NamedTuple

from fastapi import Depends
from starlette.responses import Response

from core.clock import epoch_ms
from core.diagnostics.collect import survey
from core.diagnostics.facts import Facts, PullQueueFacts
from core.diagnostics.rules import findings
from ingress.api.admin import models
from ingress.api.admin.models import answer_json
from ingress.api.tasks.serialization import moment
from ingress.connected import Connected
from ingress.http.dependencies import AdminCaller, AppConnected, AppIngress, PerApp
from ingress.http.routing import answer, api_router
from ingress.runtime import NOT_CONNECTED, Ingress
from schemas import topics
from schemas.codec import STATUS, SchemaError, state_of
from schemas.framing import FramingError
from schemas.records import PULL_WORKER, Queue, Status

PAGE = 500
SCAN_ROWS = 50_000
"""Rows that are read of a queue that workers serve: half a second."""
router = api_router("Administration")


class QueueLevelStatus(NamedTuple):
    """What the read model shows of a queue and level that workers serve."""

    queue: str
    level: int
    waiting: int
    oldest_ms: int
    leased: list[Status]


class Doctor:
    """Examinations of the deployment; requests that arrive during one share it, for one costs as much as requests."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._running: asyncio.Task[Facts] | None = None

    async def examine(self) -> Facts:
        """Watch the deployment for some seconds and return what was found."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._examine(), name="doctor")
        return await asyncio.shield(self._running)

    async def _examine(self) -> Facts:
        facts = await survey(self._ingress.settings, self._ingress.cluster)
        connected = self._ingress.connection
        if connected is None:
            facts.ingress = [NOT_CONNECTED]
            return facts
        facts.ingress = connected.unhealthy_reasons()
        facts.pulled = [
            PullQueueFacts(one.queue, one.level, one.waiting, len(one.leased), one.oldest_ms)
            for one in await _pull_levels(connected)
        ]
        if facts.broker_error is None:  # the numbers that admission goes by, tasks between two attempts included
            facts.backlogs = connected.admission.all()
        return facts


@router.get(
    "/v1/admin/workers",
    operation_id="adminListWorkers",
    summary="List schedulers, dispatchers and workers",
    responses={200: answer("All of them.", models.WorkerList, example=models.WORKERS)},
)
async def list_workers(_: AdminCaller, ingress: AppIngress, connected: AppConnected) -> Response:
    """Schedulers and dispatchers with a heartbeat in the last 10 s, other consumers of work topics, pull workers."""
    now_ms = epoch_ms()
    schedulers = [
        {
            "name": name,
            "level": topics.level_name(level),
            "partitions": sorted(seen.partitions),
            "last_heard_at": moment(seen.at_ms),
        }
        for level, name, seen in connected.liveness.schedulers(now_ms)
    ]
    reading = await _partitions(ingress, connected)
    known = connected.liveness.workers(now_ms)
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
    body = {
        "object": "workers",
        "schedulers": schedulers,
        "dispatchers": dispatchers,
        "other_consumers": [{"name": name, "queues": of} for name, of in sorted(reading.items()) if name not in named],
        "pull_workers": [one for level in await _pull_levels(connected) for one in _pull_workers(level)],
    }
    return answer_json(body)


@router.get(
    "/v1/admin/doctor",
    operation_id="adminDoctor",
    summary="Find out what is stuck and why",
    responses={
        200: answer(
            "Findings.",
            models.DoctorReport,
            example={"object": "doctor", "healthy": False, "watched_s": 10.0, "data": [models.FINDING]},
        )
    },
)
async def run_doctor(_: AdminCaller, doctor: Annotated[Doctor, Depends(PerApp(Doctor))]) -> Response:
    """Watches the deployment for 3 to 10 s. Each finding has a next step."""
    facts = await doctor.examine()
    found = findings(facts)
    healthy = all(one.weight != "problem" for one in found)
    data = [one._asdict() for one in found]
    return answer_json({"object": "doctor", "healthy": healthy, "watched_s": round(facts.watched_s, 1), "data": data})


async def _partitions(ingress: Ingress, connected: Connected) -> dict[str, dict[str, int]]:
    """Return by consumer how many work partitions of each queue it reads."""
    works = {
        ingress.settings.topic(topics.work(queue["name"], level)): (queue["name"], level)
        for queue in connected.queues.all()
        if queue["served_by"] != "workers"
        for level in (0, 1)
    }
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for group, members in (await ingress.cluster.members(list(works))).items():
        queue, level = works[group]
        for member in members:
            name = member.client.removesuffix(f"-{queue}-{topics.level_name(level)}")
            found[name][queue] = found[name].get(queue, 0) + len(member.partitions)
    return dict(found)


async def _pull_levels(connected: Connected) -> list[QueueLevelStatus]:
    queues = [one for one in connected.queues.all() if one["served_by"] == "workers"]
    return [await _pull_level(connected, queue, level) for queue in queues for level in (0, 1)]


async def _pull_level(connected: Connected, queue: Queue, level: int) -> QueueLevelStatus:
    """Scan the rows of a queue; most are skipped by their first byte."""
    begin = f"TASK-{queue['number']}-{level}-".encode()
    bound = begin + b"\xff"
    waiting, oldest_ms, seen = 0, epoch_ms(), 0
    leased: list[Status] = []
    while seen < SCAN_ROWS and (page := connected.view.scan(begin, bound, limit=PAGE)):
        for _, value in page:
            row = _row(value, queue["name"])
            if row is not None and row["state"] == "processing":
                leased.append(row)
            elif row is not None:
                waiting += 1
                oldest_ms = min(oldest_ms, row["created_ms"])
        seen += len(page)
        begin = page[-1][0] + b"\x00"
        await asyncio.sleep(0)
    return QueueLevelStatus(queue["name"], level, waiting, max(0, epoch_ms() - oldest_ms), leased)


def _row(value: bytes, queue: str) -> Status | None:
    if state_of(value) not in ("queued", "processing"):
        return None
    try:
        row = STATUS.decode(value)
    except (FramingError, SchemaError):
        return None
    return row if row["queue"] == queue else None


def _pull_workers(level: QueueLevelStatus) -> list[dict[str, Any]]:
    """Sum up the tasks that workers have taken at each ingress: every take has a worker name of its own."""
    by_ingress: dict[str, list[Status]] = defaultdict(list)
    for row in level.leased:
        if (name := row["worker"] or "").startswith(PULL_WORKER):
            by_ingress[name.rsplit("/", 1)[0]].append(row)
    return [
        {
            "name": name,
            "queue": level.queue,
            "level": topics.level_name(level.level),
            "running": len(rows),
            "next_lease_ends_at": _soonest([row["lease_until_ms"] for row in rows]),
        }
        for name, rows in sorted(by_ingress.items())
    ]


def _soonest(times: list[int | None]) -> str | None:
    known = [at_ms for at_ms in times if at_ms is not None]
    return moment(min(known)) if known else None
