"""What became of a task's callbacks, and sending them again."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core import deliveries
from core.errors import Gone, InvalidRequest
from ingress.api.tasks.serialization import moment
from ingress.http.body import read_body
from ingress.read_model.task_snapshot import TaskSnapshot
from ingress.read_model.task_view import TaskView
from ingress.runtime import Ingress
from ingress.submission.resend import MAX_BODY, requested_event, resend
from schemas.records import TERMINAL, Delivery
from schemas.validation import CALLBACK_EVENTS

JSON = "application/json"


class DeliveryRoutes:
    """Callbacks of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/v1/tasks/{task_id}/deliveries", self.list, methods=["GET"]),
            Route("/v1/tasks/{task_id}/deliveries/resend", self.resend, methods=["POST"]),
        ]

    async def list(self, request: Request) -> Response:
        """Show the attempts of each callback, and when the next one is due."""
        owner = self._ingress.keys.caller(request, scope="read").owner
        connected = self._ingress.connected()
        reading = await connected.task_lookup.find_state(request.path_params["task_id"], owner=owner)
        return _listed(reading.id, connected.deliveries.of(reading.id))

    async def resend(self, request: Request) -> Response:
        """Begin a new round at once: of the outcome, or of the event that the body names."""
        owner = self._ingress.keys.caller(request, scope="submit").owner
        event = requested_event(await read_body(request, limit=MAX_BODY), CALLBACK_EVENTS)
        connected = self._ingress.connected()
        reading = await connected.task_lookup.find_state(request.path_params["task_id"], owner=owner)
        found = {one["event"]: one for one in connected.deliveries.of(reading.id)}
        name = event or next((one for one in deliveries.OUTCOMES if one in found), reading.state)
        delivery = found.get(name) or self._fresh(connected.view, reading, name)
        delivery = await resend(self._ingress.settings, connected.producer, connected.deliveries, delivery)
        return _listed(reading.id, [delivery], status=202)

    def _fresh(self, view: TaskView, reading: TaskSnapshot, name: str) -> Delivery:
        """Begin a delivery that has no row yet: of an outcome that no callback was told of."""
        if reading.callback_url is None:
            raise InvalidRequest(f"task {reading.id} names no callback_url")
        if reading.state not in TERMINAL:
            raise InvalidRequest(f"task {reading.id} has not ended yet")
        if name not in deliveries.OUTCOMES or name != reading.state:
            raise InvalidRequest(
                f"task {reading.id} has told nobody of {name}, so it cannot be told again", field="event"
            )
        row = view.get(reading.id.encode())
        if row is None or row["result_offset"] is None:
            raise Gone(f"the result of {reading.id} is not kept any more")
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
