"""Queues for administrators: list, register, settings and pauses, purge."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core import drain_rate
from core.errors import InvalidRequest, NotFound, RateLimited
from core.kafka.cluster import Lag
from core.queues import QueueChanges
from ingress.api.admin.fields import MAX_BODY, JsonFields, answer, limit_of, parameters
from ingress.api.admin.purge import purge
from ingress.api.tasks.serialization import moment
from ingress.http.body import read_body
from ingress.runtime import Ingress
from schemas import topics
from schemas.records import Queue
from schemas.validation import Invalid, check_endpoint, check_queue

MAX_CONCURRENCY = 100_000
MAX_RETENTION_S = 604_800
MAX_WAITING = 1_000_000_000
DEFAULT_LIMIT, MAX_LIMIT = 100, 500
PURGE_WAIT_S = 10
SETTINGS = ("paused", "width", "concurrency", "result_retention_s", "max_waiting")


class QueueAdminRoutes:
    """Queues of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._partitions = ingress.settings.kafka.partitions

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/v1/admin/queues", self.queues, methods=["GET", "POST"]),
            Route("/v1/admin/queues/{queue}", self.queue, methods=["GET", "PATCH"]),
            Route("/v1/admin/queues/{queue}/purge", self.purge, methods=["POST"]),
        ]

    async def queues(self, request: Request) -> Response:
        """List, or register."""
        return await (self.register if request.method == "POST" else self.all)(request)

    async def queue(self, request: Request) -> Response:
        """Show, or change."""
        return await (self.change if request.method == "PATCH" else self.show)(request)

    async def all(self, request: Request) -> Response:
        """List queues by name, with how much of each waits."""
        self._ingress.keys.caller(request, "admin")
        query = parameters(request.query_params.multi_items(), ("after", "limit"))
        limit = limit_of(query.get("limit"), DEFAULT_LIMIT, MAX_LIMIT)
        following = [one for one in self._ingress.connected().queues.all() if one["name"] > query.get("after", "")]
        page = following[:limit]
        waiting = await self._waiting(page)
        data = [self._object(one, waiting.get(one["name"])) for one in page]
        more = page[-1]["name"] if len(following) > limit else None
        return answer({"object": "list", "data": data, "has_more": more is not None, "next_cursor": more})

    async def show(self, request: Request) -> Response:
        """Show one queue."""
        self._ingress.keys.caller(request, "admin")
        return await self._shown(self._queue(request))

    async def register(self, request: Request) -> Response:
        """Register a queue by name with its settings; a name that is taken is refused."""
        caller = self._ingress.keys.caller(request, "admin")
        names = ("name", "endpoint", "served_by", *SETTINGS)
        given = JsonFields(await read_body(request, limit=MAX_BODY), names)
        name, endpoint = given.text("name"), given.text("endpoint")
        if name is None:
            raise InvalidRequest("name is missing", field="name")
        try:
            check_queue(name)
            if endpoint is not None:
                check_endpoint(endpoint)
        except Invalid as error:
            raise InvalidRequest(error.message, field="name" if error.field == "queue" else error.field) from None
        served_by = given.text("served_by") or "dispatcher"
        if served_by not in ("dispatcher", "workers"):
            raise InvalidRequest("served_by must be dispatcher or workers", field="served_by")
        changes = self._changes(given)
        taken = InvalidRequest(f"queue {name} is registered already; its settings can be changed", field="name")
        connected = self._ingress.connected()
        if connected.queues.get(name) is not None:
            raise taken
        try:
            queue = await connected.queues.register(
                connected.producer,
                name,
                endpoint=endpoint,
                owner=caller.owner,
                explicit=True,
                served_by="workers" if served_by == "workers" else "dispatcher",
                changes=changes,
            )
        except RateLimited as error:  # nothing that passes by itself, so no 429
            raise InvalidRequest(error.message, field="name") from None
        if not queue["explicit"] or queue["owner"] != caller.owner:
            raise taken
        return answer(self._object(queue, None), status=201)

    async def change(self, request: Request) -> Response:
        """Change settings; those that are not named stay."""
        self._ingress.keys.caller(request, "admin")
        queue = self._queue(request)
        changes = self._changes(JsonFields(await read_body(request, limit=MAX_BODY), SETTINGS))
        if changes == QueueChanges():
            raise InvalidRequest(f"name at least one of {', '.join(SETTINGS)}", field="body")
        if changes.width is not None and self._wide(changes.width) < self._wide(queue["width"]):
            wide = self._wide(queue["width"])
            raise InvalidRequest(f"width only grows: the queue spreads over {wide} partitions now", field="width")
        connected = self._ingress.connected()
        changed = await connected.queues.configure(connected.producer, queue["name"], changes)
        return await self._shown(changed)

    async def purge(self, request: Request) -> Response:
        """Cancel everything that waits in a queue now."""
        self._ingress.keys.caller(request, "admin")
        queue = self._queue(request)
        given = JsonFields(await read_body(request, limit=MAX_BODY), ("level", "wait_s"))
        level, wait_s = given.level(), given.wait_s(PURGE_WAIT_S)
        told = await purge(
            self._ingress.settings,
            self._ingress.connected(),
            queue,
            (0, 1) if level is None else (level,),
            wait_s=wait_s,
        )
        return answer({"object": "purge", **told}, status=200 if told["done"] else 202)

    def _queue(self, request: Request) -> Queue:
        name = request.path_params["queue"]
        queue = self._ingress.connected().queues.get(name)
        if queue is None:
            raise NotFound(f"there is no queue {name[:80]}")
        return queue

    def _changes(self, given: JsonFields) -> QueueChanges:
        retention_s = given.integer("result_retention_s", 0, MAX_RETENTION_S)
        return QueueChanges(
            width=given.integer("width", 0, self._partitions),
            paused=given.boolean("paused"),
            concurrency=given.integer("concurrency", 0, MAX_CONCURRENCY),
            retention_ms=None if retention_s is None else retention_s * 1000,
            max_waiting=given.integer("max_waiting", 0, MAX_WAITING),
        )

    def _wide(self, width: int) -> int:
        return width if 0 < width < self._partitions else self._partitions

    async def _shown(self, queue: Queue) -> Response:
        return answer(self._object(queue, (await self._waiting([queue])).get(queue["name"])))

    def _object(self, queue: Queue, lags: list[Lag] | None) -> dict[str, Any]:
        """Render a queue; of one that workers serve it is known what waits where there is a limit for it."""
        shown = queue_object(queue, lags, limit=drain_rate.limit_of(self._ingress.settings, queue["name"], queue))
        if shown["waiting"] is None and queue["served_by"] == "workers":
            known = {
                one.level: one.waiting
                for one in self._ingress.connected().admission.all()
                if one.queue == queue["name"]
            }
            shown["waiting"] = dict(zip(topics.LEVELS, (known[0], known[1]), strict=True)) if len(known) == 2 else None
        return shown

    async def _waiting(self, queues: list[Queue]) -> dict[str, list[Lag]]:
        """Return how far the dispatchers have read each queue, online and offline."""
        topic = self._ingress.settings.topic
        works = {
            topic(topics.work(queue["name"], level)): queue["name"]
            for queue in queues
            if queue["served_by"] != "workers"
            for level in (0, 1)
        }
        found: dict[str, list[Lag]] = {}
        for lag in await self._ingress.cluster.lags([(work, work) for work in works]):
            found.setdefault(works[lag.topic], []).append(lag)
        return found


def queue_object(queue: Queue, lags: list[Lag] | None, *, limit: int) -> dict[str, Any]:
    """Render a queue; what waits is null where it is not known."""
    known = lags is not None and len(lags) == 2
    retention_ms = queue["retention_ms"]
    return {
        "object": "queue",
        "name": queue["name"],
        "number": queue["number"],
        "endpoint": queue["endpoint"],
        "owner": queue["owner"],
        "created_at": moment(queue["created_ms"]),
        "registered_by": "name" if queue["explicit"] else "first task",
        "served_by": queue["served_by"],
        "paused": queue["paused"],
        "width": queue["width"],
        "concurrency": queue["concurrency"],
        "result_retention_s": None if retention_ms is None else retention_ms // 1000,
        "max_waiting": limit or None,
        "waiting": dict(zip(topics.LEVELS, (one.waiting for one in lags or ()), strict=True)) if known else None,
    }
