"""The routes of workers and of the queues they serve: register, metadata, take, complete, stats."""

from __future__ import annotations

import logging
import secrets
import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.errors import Forbidden, InvalidRequest, NotFound, Unavailable
from core.usage import usage_of
from ingress.api.bella import pull_routes
from ingress.auth.keys import Caller
from ingress.http.request import BODY_SETTING, read_body
from ingress.pull.claims import WORKER_ERROR, reported
from ingress.pull.strategies import TakeRequest
from ingress.runtime import Ingress
from schemas import ids
from schemas.records import Queue, Status

log = logging.getLogger(__name__)

JSON = "application/json"
COUNTED_S = 10.0
NO_EVENT_BUS = (
    "there is no event bus to connect to; complete carries the outcome, and readers of Kafka find every event in the "
    "topics"
)


class QueueRoutes:
    """What Bella's pull workers call."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._max_body = ingress.settings.ingress.max_body_bytes
        self._inline_bytes = ingress.settings.storage.inline_bytes
        self._answers = ingress.metrics.answers

    def routes(self) -> list[Route]:
        """List the routes; they come before those whose path is a parameter alone."""
        return [
            Route("/v1/queue/register", self.register, methods=["POST"]),
            Route("/v1/queue/take", self.take, methods=["POST"]),
            Route("/v1/queue/eventbus", self.event_bus, methods=["GET"]),
            Route("/v1/queue/{task_id}/complete", self.complete, methods=["POST"]),
            Route("/v1/queue/{queue}/metadata", self.metadata, methods=["GET"]),
            Route("/v1/queue/{queue_level}/stats", self.stats, methods=["GET"]),
        ]

    async def register(self, request: Request) -> Response:
        """Register a queue by name; a name that is taken is refused, and one that the operator shares among tenants."""
        caller = self._ingress.keys.caller(request, "submit")
        asked = pull_routes.parse_register(await read_body(request, limit=self._max_body, setting=BODY_SETTING))
        if not _is_admin(caller):
            self._check_not_shared(asked.queue)
        connected = self._ingress.connected()
        queue = connected.queues.get(asked.queue)
        if queue is None:
            queue = await connected.queues.register(
                connected.producer,
                asked.queue,
                endpoint=asked.endpoint,
                owner=caller.owner,
                explicit=True,
                served_by=asked.served_by,
            )
            if queue["explicit"] and queue["owner"] == caller.owner:
                self._answers.labels("register", "", "200").inc()
                return Response(b'"%b"' % asked.queue.encode(), media_type=JSON)
        raise InvalidRequest(f"queue {asked.queue} is registered already", field="queue")

    async def metadata(self, request: Request) -> Response:
        """Show a queue's endpoint; nothing for one that is not there, as Bella answers."""
        self._ingress.keys.caller(request, "read")
        queue = self._ingress.connected().queues.get(request.path_params["queue"])
        if queue is None:
            return Response(b"")  # of no type: an empty text is no JSON
        return Response(pull_routes.described(queue), media_type=JSON)

    async def take(self, request: Request) -> Response:
        """Hand out tasks; from now on they are in the caller's hands."""
        caller = self._ingress.keys.caller(request, "submit")
        order = pull_routes.parse_take(await read_body(request, limit=self._max_body, setting=BODY_SETTING))
        await self._open(order, caller)
        pull = self._ingress.connected().pull
        taken = await pull.take(self._without_paused(order))
        if await request.is_disconnected():
            await pull.claims.release([one.row for tasks in taken.values() for one in tasks])
            taken = {}
        self._answers.labels("take", order.strategy, "200").inc()
        return Response(pull_routes.taken_map(taken), media_type=JSON)

    async def complete(self, request: Request) -> Response:
        """Take the outcome of a task that the caller's workers hold; what comes too late changes nothing."""
        caller = self._ingress.keys.caller(request, "submit")
        given = pull_routes.parse_complete(await read_body(request, limit=self._max_body, setting=BODY_SETTING))
        row = await self._row(request.path_params["task_id"], caller)
        pull_routes.check_is_for(given, ids.parse(row["id"]))
        if not await self._finish(row, given):
            log.info(
                "an outcome of %s came too late",
                row["id"],
                extra={"event": "late_completion_ignored", "task_id": row["id"]},
            )
        self._answers.labels("complete", row["mode"], "200").inc()
        return Response(b'"%b"' % row["id"].encode(), media_type=JSON, headers={"x-task-id": row["id"]})

    async def stats(self, request: Request) -> Response:
        """Show the counts of a queue and level."""
        caller = self._ingress.keys.caller(request, "read")
        name = pull_routes.parse_queue_level(request.path_params["queue_level"], field="queue:level")
        connected = self._ingress.connected()
        queue = connected.queues.get(name.queue)
        if queue is None or not (_is_admin(caller) or queue["owner"] == caller.owner):
            raise _no_queue(name.queue)
        watched = connected.pull.watch(name)
        if not await watched.counted(COUNTED_S):
            raise Unavailable(f"the tasks of {name} are still being counted; try again in some seconds")
        return Response(pull_routes.head_row(name, watched.lane), media_type=JSON)

    async def event_bus(self, request: Request) -> Response:
        """Say that there is none: Bella hands out the address and password of its Redis here."""
        self._ingress.keys.caller(request, "read")
        raise NotFound(NO_EVENT_BUS)

    def _check_not_shared(self, name: str) -> None:
        """Refuse names that tenants share: the registrant's workers would be given the tasks of all of them."""
        settings = self._ingress.settings
        if name == settings.ingress.default_queue:
            raise Forbidden(f"queue {name} is everybody's default; this needs a key with the scope admin")
        if name in settings.queues:
            raise Forbidden(f"queue {name} stands in the settings; this needs a key with the scope admin")

    async def _open(self, order: TakeRequest, caller: Caller) -> None:
        """Let only the registrant and admins take from a queue, and give it to workers when it is not theirs yet."""
        connected = self._ingress.connected()
        queues = {name: self._served_queue(name, caller) for name in dict.fromkeys(lane.queue for lane in order.queues)}
        for name, queue in queues.items():
            if queue["served_by"] != "workers":
                await connected.queues.convert_to_pull_queue(connected.producer, queue)
                log.info(
                    "queue %s is served by workers now", name, extra={"event": "queue_converted_to_pull", "queue": name}
                )

    def _without_paused(self, order: TakeRequest) -> TakeRequest:
        """Leave out lanes whose queue is paused: nothing of them is handed out, and what workers hold goes on."""
        known = self._ingress.connected().queues
        queues = {lane.queue: known.get(lane.queue) for lane in order.queues}
        paused = {name for name, queue in queues.items() if queue is not None and queue["paused"]}
        if not paused:
            return order
        return order._replace(queues=tuple(lane for lane in order.queues if lane.queue not in paused))

    def _served_queue(self, name: str, caller: Caller) -> Queue:
        queue = self._ingress.connected().queues.get(name)
        if queue is not None and (_is_admin(caller) or (queue["explicit"] and queue["owner"] == caller.owner)):
            return queue
        raise _no_queue(name)

    async def _row(self, text: str, caller: Caller) -> Status:
        """Return the row of a task that the caller's workers may complete; raises NotFound."""
        unknown = NotFound(f"there is no task {text[:80]}")
        try:
            task_id = ids.parse(text)
        except ids.IdError:
            raise unknown from None
        if task_id.partition >= self._ingress.settings.kafka.partitions:
            raise unknown
        # The take may have gone through another ingress: only a view that has everything knows which attempt is held.
        connected = self._ingress.connected()
        await connected.pull.claims.read_all(task_id.level, [task_id.partition])
        row = connected.view.get(str(task_id).encode())
        if row is None or row["duplicate_of"] is not None or row["source_offset"] < 0:
            raise unknown
        try:
            self._served_queue(row["queue"], caller)
        except NotFound:
            raise unknown from None
        return row

    async def _finish(self, row: Status, given: pull_routes.Completion) -> bool:
        """Bring an outcome to the scheduler; False when the task is in other hands, or has ended already."""
        if row["lease_until_ms"] is None or given.attempt not in (None, row["attempt"]):
            return False
        body: bytes | None = given.body
        body_ref = None
        if len(given.body) > self._inline_bytes:
            name = f"results/{row['id']}-{row['attempt']}-{secrets.token_hex(4)}"
            body_ref = await self._ingress.blobs.put(given.body, name=name, media_type=given.content_type)
            body = None
        outcome = reported(
            given.status_code,
            body=body,
            body_ref=body_ref,
            content_type=given.content_type,
            usage=usage_of(given.body),
            started_ms=row["started_ms"] or time.time_ns() // 1_000_000,
        )
        judged = await self._ingress.connected().pull.claims.finish(row, outcome)
        # Not judged in time is not dropped: the outcome is in the log, and what is before it decides.
        return judged is None or (judged["attempt"] == row["attempt"] and judged["error_code"] in (None, WORKER_ERROR))


def _is_admin(caller: Caller) -> bool:
    return "admin" in caller.scopes


def _no_queue(name: str) -> NotFound:
    return NotFound(f"there is no queue {name} that this key may take from")
