"""The routes of async tasks: look, wait, list and cancel; a task of any door can be looked at here."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.errors import RateLimited, Unavailable
from ingress.api.tasks import serialization
from ingress.api.tasks.listing import cursor, read_page, read_query
from ingress.auth.keys import Caller
from ingress.read_model.task_snapshot import TaskSnapshot
from ingress.runtime import Ingress
from ingress.submission.cancel import cancel_task
from schemas.records import TERMINAL

JSON = "application/json"
OWN_ROWS_S = 5.0
"""The longest that a list waits for rows of its own tenant; with a scheduler that keeps up it takes milliseconds."""


class TaskRoutes:
    """Async tasks of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._answers = ingress.metrics.answers

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/v1/tasks", self.list, methods=["GET"]),
            Route("/v1/tasks/{task_id}", self.get, methods=["GET"]),
            Route("/v1/tasks/{task_id}/cancel", self.cancel, methods=["POST"]),
        ]

    async def get(self, request: Request) -> Response:
        """Show a task as it stands; with `Prefer: wait=N` as soon as it has ended, or as it stands after N seconds."""
        caller = self._ingress.keys.caller(request, scope="read")
        text = request.path_params["task_id"]
        # Who asks for the head alone wants no more than to know that there is one.
        seconds = 0 if request.method == "HEAD" else serialization.wait_s(request.headers.getlist("prefer"))
        connected = self._ingress.connected()
        reading = await connected.task_lookup.find(text, owner=caller.owner, data=False)
        applied = seconds > 0
        if applied and reading.state not in TERMINAL:
            applied = await self._ended(reading.id.encode(), request, caller, seconds)
            reading = await connected.long_polls.find(reading.id, owner=caller.owner)
        self._answers.labels("task", reading.mode, "200").inc()
        response = _shown(reading)
        if applied:
            response.headers["preference-applied"] = f"wait={seconds}"
        return response

    async def cancel(self, request: Request) -> Response:
        """Cancel a task, and show how it stands then."""
        owner = self._ingress.keys.caller(request, scope="submit").owner
        connected = self._ingress.connected()
        asked = await cancel_task(connected, request.path_params["task_id"], owner=owner)
        reading = await connected.task_lookup.find_state(asked.id, owner=owner)
        self._answers.labels("task-cancel", reading.mode, "200").inc()
        return _shown(reading)

    async def list(self, request: Request) -> Response:
        """List the caller's tasks, newest first."""
        owner = self._ingress.keys.caller(request, scope="read").owner
        query = read_query(request.query_params.multi_items())
        view = self._ingress.connected().view
        if not view.caught_up:
            raise Unavailable("the read model has not caught up yet; try again in some seconds")
        await self._own_rows(owner)
        page = await read_page(view, owner, query)
        data = [serialization.task_object(reading) for reading in page.tasks]
        body = {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": page.next is not None,
            "next_cursor": None if page.next is None else cursor(page.next),
        }
        self._answers.labels("task-list", "", "200").inc()
        return Response(orjson.dumps(body), media_type=JSON, headers={"cache-control": "no-store"})

    async def _ended(self, key: bytes, request: Request, caller: Caller, seconds: int) -> bool:
        """Wait for the end of a task; False at once where no more may be held: a look is answered then, not refused."""
        long_polls = self._ingress.connected().long_polls
        try:
            with self._ingress.limits.holding(caller):
                return await long_polls.wait_until_ended(key, request.receive, seconds=seconds)
        except RateLimited:
            return False

    async def _own_rows(self, owner: str) -> None:
        """Wait a moment for the rows of what this tenant has just put here: a list right after it shows it."""
        connected = self._ingress.connected()
        with suppress(TimeoutError):
            async with asyncio.timeout(OWN_ROWS_S):
                for key in reversed(connected.recent_writes.take(owner)):
                    await connected.view.wait(key, seconds=OWN_ROWS_S)


def _shown(reading: TaskSnapshot) -> Response:
    headers = {"x-task-id": reading.id, "cache-control": "no-store"}
    if reading.state not in TERMINAL:
        headers["retry-after"] = str(serialization.RETRY_AFTER_S)
    return Response(orjson.dumps(serialization.task_object(reading)), media_type=JSON, headers=headers)
