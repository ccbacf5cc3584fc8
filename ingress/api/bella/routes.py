"""The routes of the Bella dialect for producers: put, get and cancel; those of workers are put in beside them."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.storage.blobs import BlobCorrupt, BlobMissing
from ingress.api.bella import serialization
from ingress.api.bella.queue_routes import QueueRoutes
from ingress.api.bella.stream import BellaStream
from ingress.http.errors import ApiProblem
from ingress.http.options import check_none
from ingress.http.request import BODY_SETTING, idempotency_key, read_body
from ingress.http.responses import stored_response
from ingress.runtime import Ingress
from ingress.submission.cancel import cancel_task
from ingress.submission.service import WaitingRequest
from ingress.waiting.blocking import WaitOutcome
from schemas.common import Blob
from schemas.records import Result

JSON = "application/json"
RETRY_AFTER_S = 2
STATUS_ENDPOINT = "GET /v1/queue/{task_id}"


class BellaRoutes:
    """Put, get and cancel of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._limits = serialization.QueueLimits(max_timeout_s=ingress.settings.ingress.max_timeout_s)
        self._max_body = ingress.settings.ingress.max_body_bytes
        self._answers = ingress.metrics.answers
        self._callback_accepted = self._answers.labels("put", "callback", "200")

    def routes(self) -> list[Route]:
        """List the routes; the path with a parameter comes last."""
        return [
            Route("/v1/queue/put", self.put, methods=["POST"]),
            *QueueRoutes(self._ingress).routes(),
            Route("/v1/queue/{task_id}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/queue/{task_id}", self.get, methods=["GET"]),
        ]

    async def put(self, request: Request) -> Response:
        """Accept a task, and hold the request in the modes that do."""
        caller = self._ingress.keys.caller(request, "submit")
        check_none(request.headers, of="put")
        body = await read_body(request, limit=self._max_body, setting=BODY_SETTING)
        task = serialization.parse_put(body, limits=self._limits, idempotency_key=idempotency_key(request))
        mode = task["mode"]
        submission = self._ingress.connected().submission
        prepared = await submission.prepare(task, caller=caller, request=request, status_endpoint=STATUS_ENDPOINT)
        del body, task  # thousands of held requests must not hold their bodies too
        if mode == "streaming":
            return BellaStream(self._ingress, submission, prepared)
        if mode == "callback":
            ticket = await submission.submit(prepared)
            self._callback_accepted.inc()
            answer = serialization.accepted(ticket.text, now_ms=_now_ms())
            return Response(answer, media_type=JSON, headers={"x-task-id": ticket.text})
        holding = submission.submit_and_wait(prepared, request)
        del prepared
        return await self._ended(await holding)

    async def get(self, request: Request) -> Response:
        """Show a task as it stands."""
        caller = self._ingress.keys.caller(request, "read")
        reading = await self._ingress.connected().task_lookup.find(request.path_params["task_id"], owner=caller.owner)
        self._answers.labels("get", reading.mode, "200").inc()
        return Response(serialization.task_object(reading), media_type=JSON, headers={"x-task-id": reading.id})

    async def cancel(self, request: Request) -> Response:
        """Cancel a task."""
        caller = self._ingress.keys.caller(request, "submit")
        reading = await cancel_task(self._ingress.connected(), request.path_params["task_id"], owner=caller.owner)
        self._answers.labels("cancel", reading.mode, "202").inc()
        headers = {"x-task-id": reading.id}
        return Response(b'"%b"' % reading.id.encode(), status_code=202, media_type=JSON, headers=headers)

    async def _ended(self, held: WaitingRequest) -> Response:
        """Answer a blocking request."""
        if held.ended is WaitOutcome.TIMEOUT:
            await self._ingress.connected().submission.cancel(held.ticket, reason=held.ended.value)
        response = await self._answer(held.ended)
        response.headers["x-task-id"] = held.ticket.text
        self._answers.labels("put", "blocking", str(response.status_code)).inc()
        return response

    async def _answer(self, ended: Result | WaitOutcome) -> Response:
        match ended:
            case WaitOutcome.SHUTDOWN:
                message = "this process is shutting down; the task goes on, fetch it with GET /v1/queue/{task_id}"
                return envelope(503, message, headers={"x-should-retry": "false"})
            case WaitOutcome():  # one that went away reads no answer, so this is for those who waited in vain
                return _timed_out("the task timed out and was cancelled")
        if ended["error_code"] in serialization.TIMEOUTS:
            return _timed_out(ended["error_message"] or "the task timed out")
        if ended["body_ref"] is not None:
            return await self._stored(ended, ended["body_ref"])
        body = ended["body"]
        if body is None and ended["state"] != "completed":
            message = ended["error_message"] or f"the task ended as {ended['state']}"
            headers = {"x-should-retry": "false"} if ended["state"] == "cancelled" else {}
            if ended["status_code"] in (429, 503):
                headers["retry-after"] = str(RETRY_AFTER_S)
            return envelope(ended["status_code"], message, headers=headers)
        # Raw headers: a media type is passed on as it came, and Starlette would add a charset to text.
        response = Response(body or b"", status_code=ended["status_code"])
        response.headers["content-type"] = ended["content_type"] or JSON
        return response

    async def _stored(self, ended: Result, blob: Blob) -> Response:
        media_type, status = ended["content_type"] or JSON, ended["status_code"]
        try:
            return await stored_response(self._ingress.blobs, blob, status=status, content_type=media_type)
        except (BlobMissing, BlobCorrupt) as error:
            return envelope(500, f"the answer was too large for a record and is lost: {error}")


def problem(problem: ApiProblem) -> Response:
    """Render an error of this dialect."""
    return envelope(problem.status, problem.message, field=problem.field, headers=dict(problem.headers))


def envelope(status: int, message: str, *, field: str | None = None, headers: dict[str, str] | None = None) -> Response:
    """Render an error envelope."""
    body = serialization.failure(status, message, now_ms=_now_ms(), field=field)
    return Response(body, status_code=status, media_type=JSON, headers=headers)


def _timed_out(message: str) -> Response:
    # Clients that retry 408 by themselves would run the task once more.
    return envelope(408, message, headers={"x-should-retry": "false"})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
