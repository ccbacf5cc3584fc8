"""The tasks API: show, wait for, list and cancel tasks, whichever API they came through."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated

import orjson
from fastapi import Header
from starlette.requests import Request
from starlette.responses import Response

from core.errors import RateLimited, Unavailable
from ingress.api.tasks import models, serialization
from ingress.api.tasks.listing import cursor, query_of, read_page
from ingress.auth.keys import Caller
from ingress.connected import Connected
from ingress.http.dependencies import AppConnected, AppIngress, ReadCaller, SubmitCaller, TaskIdPath
from ingress.http.routing import JSON, answer, api_router, error
from ingress.read_model.task_snapshot import TaskSnapshot
from ingress.runtime import Ingress
from ingress.submission.cancel import cancel_task
from schemas.records import TERMINAL

OWN_ROWS_S = 5.0
"""The longest that a list waits for rows of its own tenant; with a scheduler that keeps up it takes milliseconds."""
TASK_ID_HEADER = {"x-task-id": "Id of the task, in the TASK- form."}
router = api_router("Tasks")
Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description=f"`wait=N`: answer as soon as the task has ended, after N seconds (at most "
        f"{serialization.MAX_WAIT_S}) at the latest. `Preference-Applied` confirms it.",
        json_schema_extra={"maxLength": 256},
    ),
]


@router.get(
    "/v1/tasks",
    operation_id="listTasks",
    summary="List the tasks of the tenant",
    responses={
        200: answer("A page.", models.TaskList, example=models.PAGE),
        400: error("A parameter is wrong."),
        404: error("There is no task with the id in `after`."),
    },
)
async def list_tasks(
    caller: ReadCaller, given: models.TaskListParameters, ingress: AppIngress, connected: AppConnected
) -> Response:
    """Newest first, without results and usage.

    A page may end before `limit` tasks are found, when many were read that do not match: continue with `next_cursor`
    as long as `has_more` is true.
    """
    query = query_of(given)
    view = connected.view
    if not view.caught_up:
        raise Unavailable("the read model has not caught up yet; try again in some seconds")
    await _own_rows(connected, caller.owner)
    page = await read_page(view, caller.owner, query)
    data = [serialization.task_object(reading) for reading in page.tasks]
    body = {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": page.next is not None,
        "next_cursor": None if page.next is None else cursor(page.next),
    }
    ingress.metrics.answers.labels("task-list", "", "200").inc()
    return Response(orjson.dumps(body), media_type=JSON, headers={"cache-control": "no-store"})


@router.get(
    "/v1/tasks/{task_id}",
    operation_id="getTask",
    summary="Show a task",
    responses={
        200: answer(
            "The task.",
            models.AsyncTask,
            examples={
                "processing": models.PROCESSING,
                "completed": models.COMPLETED,
                "failed": models.FAILED,
            },
            headers=TASK_ID_HEADER,
        ),
    },
)
async def show_task(
    caller: ReadCaller,
    task_id: TaskIdPath,
    request: Request,
    ingress: AppIngress,
    connected: AppConnected,
    _prefer: Prefer = None,
) -> Response:
    """Works for every task of the tenant, whichever API it came through.

    `result` is the model server's body: JSON as it came, other text as a string, anything else in base64
    (`result_encoding`). Once the retention of the result is over the status is `expired` and the result is deleted;
    after 7 more days the task is unknown. `progress` is measured for calls that stream and name `max_tokens`, else it
    goes from 0 to 100 at once. While a task has not ended, `Retry-After` gives the time to ask again.
    """
    # A HEAD request does not wait: it only asks whether there is such a task.
    seconds = 0 if request.method == "HEAD" else serialization.wait_s(request.headers.getlist("prefer"))
    reading = await connected.task_lookup.find(task_id, owner=caller.owner, data=False)
    applied = seconds > 0
    if applied and reading.state not in TERMINAL:
        applied = await _ended(ingress, connected, reading.id.encode(), request, caller, seconds)
        reading = await connected.long_polls.find(reading.id, owner=caller.owner)
    ingress.metrics.answers.labels("task", reading.mode, "200").inc()
    response = _shown(reading)
    if applied:
        response.headers["preference-applied"] = f"wait={seconds}"
    return response


@router.post(
    "/v1/tasks/{task_id}/cancel",
    operation_id="cancelTask",
    summary="Cancel a task",
    responses={
        200: answer("The task.", models.AsyncTask, examples={"cancelled": models.CANCELLED}, headers=TASK_ID_HEADER),
        400: error("The task has ended already.", models.NOT_CANCELLABLE),
    },
)
async def cancel(caller: SubmitCaller, task_id: TaskIdPath, ingress: AppIngress, connected: AppConnected) -> Response:
    """A running call is closed. The answer is the task: cancelled, or in its present state until it is."""
    asked = await cancel_task(connected, task_id, owner=caller.owner)
    reading = await connected.task_lookup.find_state(asked.id, owner=caller.owner)
    ingress.metrics.answers.labels("task-cancel", reading.mode, "200").inc()
    return _shown(reading)


async def _ended(
    ingress: Ingress, connected: Connected, key: bytes, request: Request, caller: Caller, seconds: int
) -> bool:
    """Wait for the end of a task; False at once if the caller has its full number of waiting requests."""
    try:
        with ingress.limits.holding(caller):
            return await connected.long_polls.wait_until_ended(key, request.receive, seconds=seconds)
    except RateLimited:
        return False


async def _own_rows(connected: Connected, owner: str) -> None:
    """Wait a moment for the rows of tasks that this tenant has just submitted here, so that the list has them."""
    with suppress(TimeoutError):
        async with asyncio.timeout(OWN_ROWS_S):
            for key in reversed(connected.recent_writes.take(owner)):
                await connected.view.wait(key, seconds=OWN_ROWS_S)


def _shown(reading: TaskSnapshot) -> Response:
    headers = {"x-task-id": reading.id, "cache-control": "no-store"}
    if reading.state not in TERMINAL:
        headers["retry-after"] = str(serialization.RETRY_AFTER_S)
    return Response(orjson.dumps(serialization.task_object(reading)), media_type=JSON, headers=headers)
