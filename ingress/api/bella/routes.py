"""The queue API for producers, which Bella's clients speak: put, show and cancel a task.

Put is the hot route: its endpoint gets the request as it is, and its declaration is for the document.
"""

from __future__ import annotations

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from core.clock import epoch_ms
from core.storage.blobs import BlobCorrupt, BlobMissing
from ingress.api.bella import models, serialization
from ingress.api.examples import COMPLETION, STREAM, TASK_TEXT
from ingress.api.openai_error import error_frame
from ingress.http import sse
from ingress.http.dependencies import (
    SUBMITS,
    AppConnected,
    AppIngress,
    PerApp,
    ReadCaller,
    SubmitCaller,
    TaskIdPath,
)
from ingress.http.errors import ApiProblem
from ingress.http.event_stream import EventStream
from ingress.http.options import check_none
from ingress.http.request import BODY_SETTING, idempotency_key, read_body
from ingress.http.responses import stored_response
from ingress.http.routing import JSON, RawRoute, answer, api_router, with_example, with_examples
from ingress.runtime import Ingress
from ingress.submission.cancel import cancel_task
from ingress.submission.service import WaitingRequest
from ingress.waiting.blocking import WaitOutcome
from ingress.waiting.streaming import StreamError
from schemas.common import Blob
from schemas.records import Result

RETRY_AFTER_S = 2
STATUS_ENDPOINT = "GET /v1/queue/{task_id}"
TASK_ID_HEADER = {"x-task-id": {"description": "Id of the task.", "schema": {"type": "string"}}}
DONE = sse.frame(sse.DONE)
ENDED = {
    WaitOutcome.TIMEOUT: StreamError("the task timed out and was cancelled", "server_error", "timeout"),
    WaitOutcome.SHUTDOWN: StreamError(
        "this process is shutting down; the task continues, fetch it with GET /v1/queue/{task_id}",
        "server_error",
        "server_shutdown",
    ),
}
put_router = api_router("Queue API", route_class=RawRoute)
router = api_router("Queue API")
"""Included after the routes of workers, whose paths are more specific."""


class BellaStream(EventStream):
    """The stream of one put: plain `data:` frames as the upstream's own, then an error frame or [DONE]."""

    route = "put"

    def final_frames(self, ending: WaitOutcome | None, failure: StreamError | None, *, error_sent: bool) -> bytes:
        """Return [DONE], an error frame, or nothing after the upstream's own."""
        failure = ENDED[ending] if ending else failure
        if failure is None:
            return DONE
        if error_sent:
            return b""
        payload = error_frame(failure.result, message=failure.message, kind=failure.type, code=failure.code)
        return sse.frame(payload)


class PutHandler:
    """Accepts tasks of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._limits = serialization.QueueLimits(max_timeout_s=ingress.settings.ingress.max_timeout_s)
        self._max_body = ingress.settings.ingress.max_body_bytes
        self._answers = ingress.metrics.answers
        self._callback_accepted = self._answers.labels("put", "callback", "200")

    async def put(self, request: Request) -> Response:
        """Accept a task; in blocking and streaming mode the request waits for the outcome."""
        caller = self._ingress.keys.caller(request, "submit")
        check_none(request.headers, of="put")
        body = await read_body(request, limit=self._max_body, setting=BODY_SETTING)
        task = serialization.parse_put(body, limits=self._limits, idempotency_key=idempotency_key(request))
        mode = task["mode"]
        submission = self._ingress.connected().submission
        prepared = await submission.prepare(task, caller=caller, request=request, status_endpoint=STATUS_ENDPOINT)
        del body, task  # thousands of waiting requests must not hold their bodies, too
        if mode == "streaming":
            return BellaStream(self._ingress, submission, prepared)
        if mode == "callback":
            ticket = await submission.submit(prepared)
            self._callback_accepted.inc()
            answer = serialization.accepted(ticket.text, now_ms=epoch_ms())
            return Response(answer, media_type=JSON, headers={"x-task-id": ticket.text})
        holding = submission.submit_and_wait(prepared, request)
        del prepared
        return await self._ended(await holding)

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
                message = "this process is shutting down; the task continues, fetch it with GET /v1/queue/{task_id}"
                return envelope(503, message, headers={"x-should-retry": "false"})
            case WaitOutcome():  # a client that disconnected reads no answer, so the time-out is the only other case
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


HANDLER = PerApp(PutHandler)


@put_router.post(
    "/v1/queue/put",
    operation_id="put",
    summary="Submit a task",
    dependencies=[SUBMITS, Depends(models.put_request)],
    responses={
        200: {
            "description": "Accepted (callback), or the upstream's answer (blocking, streaming).",
            "headers": TASK_ID_HEADER,
            "content": {
                JSON: with_examples({"callback": models.ACCEPTED, "blocking": COMPLETION}),
                sse.MEDIA_TYPE: with_example(STREAM),
            },
        },
        **models.PUT_ERRORS,
    },
)
async def put(request: Request) -> Response:
    """The answer depends on `response_mode`.

    - callback: the task id at once; the outcome is posted to `callback_url` as `{status_code, request_id, body}`.
    - blocking: the upstream's own status and body.
    - streaming: the upstream's stream as server-sent events, with comment lines while it is silent; an error is a
      frame `{"error": {...}}` without [DONE].

    A client that disconnects cancels its blocking or streaming task, unless it sent an Idempotency-Key: then the same
    request may be sent again for the answer.
    """
    return await HANDLER.of(request).put(request)


@router.post(
    "/v1/queue/{task_id}/cancel",
    operation_id="cancel",
    summary="Cancel a task",
    responses={
        202: answer(
            "The task is cancelled, or will be as soon as the scheduler reads the request; the id as a JSON string.",
            str,
            example=TASK_TEXT,
        ),
        **models.NOT_CANCELLABLE,
    },
)
async def cancel(caller: SubmitCaller, task_id: TaskIdPath, ingress: AppIngress, connected: AppConnected) -> Response:
    """Works in every mode and from any ingress.

    A waiting task never reaches the model server; the connection of a running one is closed. A task that has ended is
    a 400 `task_not_cancellable`.
    """
    reading = await cancel_task(connected, task_id, owner=caller.owner)
    ingress.metrics.answers.labels("cancel", reading.mode, "202").inc()
    headers = {"x-task-id": reading.id}
    return Response(b'"%b"' % reading.id.encode(), status_code=202, media_type=JSON, headers=headers)


@router.get(
    "/v1/queue/{task_id}",
    operation_id="get",
    summary="Show a task",
    responses={200: answer("The task; members without a value are left out.", models.BellaTask, example=models.TASK)},
)
async def show(caller: ReadCaller, task_id: TaskIdPath, ingress: AppIngress, connected: AppConnected) -> Response:
    """Show a task."""
    reading = await connected.task_lookup.find(task_id, owner=caller.owner)
    ingress.metrics.answers.labels("get", reading.mode, "200").inc()
    return Response(serialization.task_object(reading), media_type=JSON, headers={"x-task-id": reading.id})


def problem(problem: ApiProblem) -> Response:
    """Render an error of this dialect."""
    return envelope(problem.status, problem.message, field=problem.field, headers=dict(problem.headers))


def envelope(status: int, message: str, *, field: str | None = None, headers: dict[str, str] | None = None) -> Response:
    """Render an error envelope."""
    body = serialization.failure(status, message, now_ms=epoch_ms(), field=field)
    return Response(body, status_code=status, media_type=JSON, headers=headers)


def _timed_out(message: str) -> Response:
    # Clients that retry 408 by themselves would run the task once more.
    return envelope(408, message, headers={"x-should-retry": "false"})
