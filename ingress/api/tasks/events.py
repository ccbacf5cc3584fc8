"""GET /v1/tasks/{task_id}/events: everything that happens to a task, from the beginning or from where a client was."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Annotated

from fastapi import Header, Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from core.errors import InvalidRequest
from ingress.api.tasks.models import EVENTS
from ingress.http import sse
from ingress.http.dependencies import AppConnected, AppIngress, ReadCaller, TaskIdPath
from ingress.http.event_stream import FIRST_BYTE_S, STALL_TIMEOUT_S
from ingress.http.responses import on_disconnect
from ingress.http.routing import api_router, error
from ingress.read_model.task_snapshot import TaskSnapshot
from ingress.runtime import Ingress
from ingress.task_events.feed import TaskEventFeed
from ingress.task_events.stream import TaskEvents, Viewer, ViewerExit
from ingress.task_events.transcript import END, START, EventPosition, parse

LAST_ID = "Last-Event-ID"
FROM = "from"
POSITION = {"pattern": "^(([1-9][0-9]{0,8}-[0-9a-f]{8}-)?[0-9]{1,9}|end)$"}
router = api_router("Tasks")
LastEventId = Annotated[
    str,
    Header(
        alias=LAST_ID,
        description="Continue after this frame: its id, or the number of data frames that were read.",
        json_schema_extra=POSITION,
    ),
]
From = Annotated[
    str,
    Query(
        alias=FROM,
        description="The same for clients that cannot set the header, which has priority.",
        json_schema_extra=POSITION,
    ),
]


@router.get(
    "/v1/tasks/{task_id}/events",
    operation_id="follow_task",
    summary="Follow a task",
    responses={
        200: {
            "description": "The events; they end with the task.",
            "headers": {"x-task-id": {"description": "Id of the task.", "schema": {"type": "string"}}},
            "content": {sse.MEDIA_TYPE: {"schema": {"type": "string"}, "example": EVENTS}},
        },
        204: {"description": "The client has read the end already: the last id is `end`."},
        400: error("Last-Event-ID or from is malformed, or the query has another parameter."),
        503: error("Kafka cannot be reached, or too many event streams are open."),
    },
)
async def follow_task(
    caller: ReadCaller,
    task_id: TaskIdPath,
    request: Request,
    ingress: AppIngress,
    connected: AppConnected,
    _last: LastEventId = "",
    _from: From = "",
) -> Response:
    """Server-sent events of any task of the tenant, whatever its mode, level or API, on any ingress.

    The route may be opened before, during and after the run, any number of times. A client that disconnects cancels
    nothing.

    - `event: status`: the state of the task, first the present one, then every change of `status` or `attempt`: `id`,
      `status` (queued, processing, completed, failed, cancelled, expired), `attempt`, `progress`, and `error_code` and
      `error_message` of a failed one. The same status is sent again only with a new attempt. No id.
    - `event: progress`: `id` and `progress` in percent, where it is known while the task runs. No id.
    - Frames without a name have an id. Of a streamed task they are the upstream's chunks, byte for byte, from the
      first. Any other task has one: the body of its answer, when that is JSON or text; for other bodies fetch the
      task.
    - A task that did not complete: `data: {"error": {…}}` without an id, unless the upstream's last chunk was an
      error.
    - The last frame is `data: [DONE]` with the id `end`; a client that connects again with that id gets a 204, at which
      a browser's EventSource stops. A stream that ends without it was cut off: connect again, to any ingress, with the
      last id. Before a planned stop of the process an error frame `server_shutdown` is sent.

    An id is ATTEMPT-RUN-COUNT: that many frames of that run have been sent. It is the same on every ingress, and
    whether the frame comes from the log or from the stored result. A client that has read a stream without ids, as
    those of the calls are, may give the number of data frames it has instead. While there is nothing to send, comment
    lines hold the connection open.

    Chunks are retained for an hour, after that the text comes from the result as long as that is retained. What had
    been delivered of a task that was ended by a lost worker, a cancel or its time-out is deleted after that hour.
    """
    position = asked_position(request)
    reading = await connected.task_lookup.find_state(task_id, owner=caller.owner)
    if position is END:
        return Response(status_code=204, headers={"x-task-id": reading.id})
    if request.method == "HEAD":  # there is no body to wait for
        return Response(headers={"x-task-id": reading.id}, media_type=sse.MEDIA_TYPE)
    return TaskEventStream(ingress, connected.task_events, reading, position)


def asked_position(request: Request) -> EventPosition:
    """Return where a client wants to continue; raises InvalidRequest. The header has priority: browsers update it."""
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
    """The events of a task for one client; a client that disconnects cancels nothing."""

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
        # Comments are safe here: clients of this route use ids, so they implement the whole format.
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
