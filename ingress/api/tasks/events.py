"""GET /v1/tasks/{task_id}/events: everything that happens to a task, from the beginning or from where a client was."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from core.errors import InvalidRequest
from ingress.http import sse
from ingress.http.disconnect import on_disconnect
from ingress.http.event_stream import FIRST_BYTE_S, STALL_TIMEOUT_S
from ingress.read_model.task_snapshot import TaskSnapshot
from ingress.runtime import Ingress
from ingress.task_events.broadcaster import TaskEvents
from ingress.task_events.feed import TaskEventFeed
from ingress.task_events.position import END, START, EventPosition, parse
from ingress.task_events.viewer import Viewer, ViewerExit

LAST_ID = "Last-Event-ID"
FROM = "from"


class EventRoutes:
    """The events of tasks of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress

    def routes(self) -> list[Route]:
        """List the routes."""
        return [Route("/v1/tasks/{task_id}/events", self.follow, methods=["GET"])]

    async def follow(self, request: Request) -> Response:
        """Open the events of a task."""
        caller = self._ingress.keys.caller(request, "read")
        position = asked_position(request)
        reading = await self._ingress.connected().task_lookup.find_state(
            request.path_params["task_id"], owner=caller.owner
        )
        if position is END:
            return Response(status_code=204, headers={"x-task-id": reading.id})
        if request.method == "HEAD":  # who wants no body must not wait for the end of the task
            return Response(headers={"x-task-id": reading.id}, media_type=sse.MEDIA_TYPE)
        return TaskEventStream(self._ingress, self._ingress.connected().task_events, reading, position)


def asked_position(request: Request) -> EventPosition:
    """Return where a client wants to go on; raises InvalidRequest. The header counts more: a browser keeps it new."""
    begin: str | None = None
    for name, value in request.query_params.multi_items():
        if name != FROM:
            raise InvalidRequest(f"there is no parameter {name[:40]}; there is {FROM}", field=name[:40])
        if begin is not None:
            raise InvalidRequest(f"{FROM} was given twice", field=FROM)
        begin = value
    if last := request.headers.get(LAST_ID):
        return parse(last, field=LAST_ID)
    return START if begin is None else parse(begin, field=FROM)


class TaskEventStream(Response):
    """One client's view of a task. Its leaving cancels nothing."""

    def __init__(self, ingress: Ingress, events: TaskEvents, reading: TaskSnapshot, position: EventPosition) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no", "x-task-id": reading.id}
        super().__init__(status_code=200, headers=headers, media_type=sse.MEDIA_TYPE)
        del self.headers["content-length"]
        self._ingress = ingress
        self._events = events
        self._reading = reading
        self._position = position

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Serve one client."""
        async with self._events.subscribe(self._reading) as feed:
            left = await self._show(feed, receive, send)
        self._ingress.metrics.answers.labels("events", self._reading.mode, left.value).inc()

    async def _show(self, feed: TaskEventFeed, receive: Receive, send: Send) -> ViewerExit:
        viewer = Viewer(feed, self._position)
        # Comments are safe here: those who read this route take ids, so they follow the whole format.
        following = viewer.follow(silence_s=min(self._ingress.settings.ingress.keep_alive_s, FIRST_BYTE_S))
        try:
            async with on_disconnect(receive, viewer.on_gone), aclosing(following):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async for data in following:
                    async with asyncio.timeout(STALL_TIMEOUT_S):
                        await send({"type": "http.response.body", "body": data, "more_body": True})
                if viewer.left is not ViewerExit.GONE:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            viewer.on_gone()
        return viewer.left or ViewerExit.GONE
