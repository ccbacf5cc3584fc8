"""The callbacks of a task: list the deliveries, and send one again."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from core import deliveries
from core.errors import Gone, InvalidRequest
from ingress.api.tasks import models
from ingress.api.tasks.serialization import moment
from ingress.http.dependencies import AppConnected, AppIngress, ReadCaller, SubmitCaller, TaskIdPath
from ingress.http.routing import JSON, answer, api_router, error
from ingress.read_model.task_snapshot import TaskSnapshot
from ingress.read_model.task_view import TaskView
from ingress.submission.resend import MAX_BODY, requested_event, restart_delivery
from schemas.records import TERMINAL, Delivery
from schemas.validation import CALLBACK_EVENTS

router = api_router("Tasks")


@router.get(
    "/v1/tasks/{task_id}/deliveries",
    operation_id="listDeliveries",
    summary="List the callbacks of a task",
    responses={
        200: answer(
            "The callbacks, the oldest first; none before the first attempt is over.",
            models.DeliveryList,
            example=models.DELIVERIES,
        )
    },
)
async def list_deliveries(caller: ReadCaller, task_id: TaskIdPath, connected: AppConnected) -> Response:
    """Every attempt with its status and time, and when the next one is due; retained for eight days."""
    reading = await connected.task_lookup.find_state(task_id, owner=caller.owner)
    return _listed(reading.id, connected.deliveries.of(reading.id))


@router.post(
    "/v1/tasks/{task_id}/deliveries/resend",
    operation_id="resendDelivery",
    summary="Send a callback again",
    responses={
        202: answer("The callback, which is now pending.", models.DeliveryList, example=models.DELIVERIES),
        410: error("The result is no longer retained."),
        413: error(f"The body is larger than {MAX_BODY} bytes."),
    },
)
async def resend_delivery(
    caller: SubmitCaller, task_id: TaskIdPath, body: models.ResendBody, ingress: AppIngress, connected: AppConnected
) -> Response:
    """A new round at once, with all its attempts, even to a URL that has answered 410."""
    event = requested_event(body, CALLBACK_EVENTS)
    reading = await connected.task_lookup.find_state(task_id, owner=caller.owner)
    found = {one["event"]: one for one in connected.deliveries.of(reading.id)}
    name = event or next((one for one in deliveries.OUTCOMES if one in found), reading.state)
    delivery = found.get(name) or _fresh(connected.view, reading, name)
    delivery = await restart_delivery(ingress.settings, connected.producer, connected.deliveries, delivery)
    return _listed(reading.id, [delivery], status=202)


def _fresh(view: TaskView, reading: TaskSnapshot, name: str) -> Delivery:
    """Begin a delivery that has no row yet: of an outcome for which no callback was sent."""
    if reading.callback_url is None:
        raise InvalidRequest(f"task {reading.id} names no callback_url")
    if reading.state not in TERMINAL:
        raise InvalidRequest(f"task {reading.id} has not ended yet")
    if name not in deliveries.OUTCOMES or name != reading.state:
        raise InvalidRequest(
            f"no callback was sent for {name} of task {reading.id}, so none can be sent again", field="event"
        )
    row = view.get(reading.id.encode())
    if row is None or row["result_offset"] is None:
        raise Gone(f"the result of {reading.id} is no longer retained")
    return deliveries.new_delivery(
        reading.id,
        name,
        name=name,
        url=reading.callback_url,
        owner=reading.owner,
        level=reading.level,
        result_offset=row["result_offset"],
        payload=None,
        now_ms=0,
        traceparent=row["traceparent"],
    )


def delivery_object(delivery: Delivery) -> dict[str, Any]:
    """Render a delivery; what has no value is null."""
    due_ms = delivery["due_ms"]
    return {
        "id": delivery["id"],
        "object": "delivery",
        "event": delivery["event"],
        "url": delivery["url"],
        "status": delivery["state"],
        "attempts_made": delivery["made"],
        "next_attempt_at": None if due_ms is None else moment(due_ms),
        "attempts": [
            {
                "attempted_at": moment(each["at_ms"]),
                "status_code": each["status_code"],
                "latency_ms": each["latency_ms"],
                "reason": each["reason"],
            }
            for each in delivery["attempts"]
        ],
    }


def _listed(task_id: str, found: list[Delivery], *, status: int = 200) -> Response:
    body = {"object": "list", "task_id": task_id, "data": [delivery_object(one) for one in found]}
    headers = {"x-task-id": task_id, "cache-control": "no-store"}
    return Response(orjson.dumps(body), status_code=status, media_type=JSON, headers=headers)
