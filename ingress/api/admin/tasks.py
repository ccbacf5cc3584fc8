"""Everybody's tasks for administrators: list, show, cancel, and run one that has ended again."""

from __future__ import annotations

import time
from typing import Any

from aiokafka import TopicPartition
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.errors import Gone, InvalidRequest, Unavailable
from core.kafka.task_records import task_of
from core.storage.blobs import BlobCorrupt, BlobMissing
from ingress.api.admin.fields import MAX_BODY, JsonFields, answer, parameters
from ingress.api.admin.task_list import owners, read_all
from ingress.api.tasks.listing import NAMES, cursor, read_query
from ingress.api.tasks.serialization import moment, task_object
from ingress.http.body import read_body, traceparent
from ingress.read_model.task_snapshot import TaskSnapshot
from ingress.runtime import Ingress
from ingress.submission.cancel import cancel_task
from schemas import ids, topics
from schemas.records import NO_ORIGIN, TERMINAL, Status, Task
from schemas.task_body import repeated

ROW_TIMES = ("not_before_ms", "start_deadline_ms", "lease_until_ms")
ROW_FACTS = (
    "mode",
    "attempt",
    "lost_workers",
    "worker",
    "callback_url",
    "duplicate_of",
    "replay_of",
    "batch_id",
    "batch_line",
    "custom_id",
    "reply_topic",
    "idempotency_key",
    "content_type",
)


class TaskAdminRoutes:
    """Tasks of all tenants of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/v1/admin/tasks", self.page, methods=["GET"]),
            Route("/v1/admin/tasks/{task_id}", self.show, methods=["GET"]),
            Route("/v1/admin/tasks/{task_id}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/admin/tasks/{task_id}/requeue", self.requeue, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """List tasks, newest first: everybody's, or those of one owner."""
        self._ingress.keys.caller(request, "admin")
        given = parameters(request.query_params.multi_items(), ("owner", *NAMES))
        owner = given.pop("owner", None)
        query = read_query(given.items())
        view = self._ingress.connected().view
        if not view.caught_up:
            raise Unavailable("the read model has not caught up yet; try again in some seconds")
        found = await read_all(view, owners(view) if owner is None else [owner], query)
        following = None if found.next is None else cursor(found.next)
        data = [_listed(one) for one in found.tasks]
        return answer({"object": "list", "data": data, "has_more": following is not None, "next_cursor": following})

    async def show(self, request: Request) -> Response:
        """Show all that is known of a task but its bodies."""
        self._ingress.keys.caller(request, "admin")
        return self._shown(
            await self._ingress.connected().task_lookup.find_state(request.path_params["task_id"], owner=None)
        )

    async def cancel(self, request: Request) -> Response:
        """Cancel a task of anybody."""
        self._ingress.keys.caller(request, "admin")
        connected = self._ingress.connected()
        asked = await cancel_task(connected, request.path_params["task_id"], owner=None)
        return self._shown(await connected.task_lookup.find_state(asked.id, owner=None))

    async def requeue(self, request: Request) -> Response:
        """Run a task that has ended again, as a new task of the same owner."""
        caller = self._ingress.keys.caller(request, "admin")
        given = JsonFields(await read_body(request, limit=MAX_BODY), ("callback", "wait_s"))
        wait_s, callback = given.wait_s(0), given.boolean("callback", default=False)
        connected = self._ingress.connected()
        standing = await connected.task_lookup.find_state(request.path_params["task_id"], owner=None)
        if standing.state not in TERMINAL:
            raise InvalidRequest(f"task {standing.id} has not ended yet ({standing.state})")
        task = await self._again(standing)
        if not callback:
            task["callback_url"], task["callback_events"] = None, []
        ticket, record = await connected.submitter.prepare(
            task, owner=standing.owner or caller.owner, traceparent=traceparent(request)
        )
        offset = await connected.submitter.send(ticket, record)
        connected.recent_writes.add(ticket.owner, ticket.key, offset=offset)
        if wait_s:
            await connected.view.wait_until_ended(ticket.key, seconds=wait_s)
        reading = await connected.task_lookup.find(ticket.text, owner=None, data=False)
        return answer({**_listed(reading), "replay_of": standing.id}, status=202)

    async def _again(self, standing: TaskSnapshot) -> Task:
        """Build the new task from the record of the old; raises Gone."""
        home = ids.parse(standing.id)
        connected = self._ingress.connected()
        row = connected.view.get(standing.id.encode())
        if row is None or row["source_offset"] < 0:
            raise Gone(f"the record of {standing.id} is not kept any more")
        tp = TopicPartition(self._ingress.settings.topic(topics.tasks(home.level)), home.partition)
        found = await connected.log_reader.read(tp, row["source_offset"])
        task = task_of(found)
        if task is None or task["id"] not in (
            None,
            standing.id,
        ):  # of a topic that was made anew
            raise Gone(f"the record of {standing.id} is not kept any more")
        if task["data_ref"] is not None:
            try:
                task["data"], task["data_ref"] = await self._ingress.blobs.get(task["data_ref"]), None
            except (BlobMissing, BlobCorrupt):
                raise Gone(f"the request of {standing.id} is not kept any more") from None
        # Nobody holds a connection for it, and its key names the first one.
        mode = "callback" if task["mode"] in ("blocking", "streaming", "batch") else task["mode"]
        lineage = {**NO_ORIGIN, "replay_of": standing.id}
        again: Task = {**task, **lineage, "mode": mode, "idempotency_key": None}  # type: ignore[typeddict-item]  # a spread of the same fields
        again["model"] = row["model"]  # which a direct producer's record need not name
        again["timeout_ms"] = max(task["timeout_ms"], standing.deadline_ms - standing.created_ms)
        return repeated(again)

    def _shown(self, reading: TaskSnapshot) -> Response:
        connected = self._ingress.connected()
        row = connected.view.get(reading.id.encode())
        queue = connected.queues.get(reading.queue)
        paused = queue is not None and queue["paused"]
        return answer({**_listed(reading), **({} if row is None else _details(row, paused=paused))})


def _listed(reading: TaskSnapshot) -> dict[str, Any]:
    return {**task_object(reading), "task_id": reading.id, "owner": reading.owner}


def _details(row: Status, *, paused: bool) -> dict[str, Any]:
    """Render what only operators see; members without a value are left out."""
    facts: dict[str, Any] = {name: row[name] for name in ROW_FACTS}  # type: ignore[literal-required]
    for name in ROW_TIMES:
        at_ms: int | None = row[name]  # type: ignore[literal-required]
        facts[name.removesuffix("_ms") + "_at"] = None if at_ms is None else moment(at_ms)
    if row["batch_id"] is None:
        facts["batch_line"] = None
    facts["waits_for"] = _waits_for(row, paused=paused)
    return {name: value for name, value in facts.items() if value is not None}


def _waits_for(row: Status, *, paused: bool) -> str | None:
    if row["state"] != "queued":
        return None
    if paused:
        return "its queue, which is paused"
    if row["not_before_ms"] is not None and row["not_before_ms"] > time.time() * 1000:
        return f"its next attempt at {moment(row['not_before_ms'])}"
    return "a worker that takes it"
