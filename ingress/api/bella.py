"""The routes of the Bella dialect: put, get and cancel."""

from __future__ import annotations

import time
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.blobs import BlobCorrupt, BlobMissing
from core.errors import Unconfirmed
from core.kafka.producer import Record
from ingress.api import bella_wire as wire
from ingress.api.bella_stream import BellaStream
from ingress.blocking import BlockingWaiter, Ending
from ingress.body import idempotency_key, read_body, traceparent
from ingress.cancelling import cancel_task
from ingress.finding import find_task
from ingress.idempotency import first_of, judged
from ingress.services import Services
from ingress.submit import Ticket
from schemas.records import Mode, Result

JSON = "application/json"
RETRY_AFTER_S = 2


class BellaRoutes:
    """Put, get and cancel over one set of services."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limits = wire.Limits(max_timeout_s=services.settings.ingress.max_timeout_s)
        self._max_body = services.settings.ingress.max_body_bytes
        self._answers = services.metrics.answers
        self._callback_accepted = self._answers.labels("put", "callback", "200")

    def routes(self) -> list[Route]:
        """List the routes; the path with a parameter comes last."""
        return [
            Route("/v1/queue/put", self.put, methods=["POST"]),
            Route("/v1/queue/{task_id}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/queue/{task_id}", self.get, methods=["GET"]),
        ]

    async def put(self, request: Request) -> Response:
        """Accept a task, and hold the request in the modes that do."""
        owner = self._services.keys.tenant(request.headers.get("authorization"))
        body = await read_body(request, limit=self._max_body)
        began = time.perf_counter()
        task = wire.parse_put(body, limits=self._limits, idempotency_key=idempotency_key(request))
        del body  # thousands of held requests must not hold their bodies too
        mode = task["mode"]
        if mode != "callback":
            self._services.waiters.check_room()
        ticket, record = await self._services.submitter.prepare(task, owner=owner, traceparent=traceparent(request))
        del task
        if mode == "streaming":
            return BellaStream(self._services, ticket, partial(self._send, ticket, record, "streaming", began))
        if mode == "callback":
            await self._send(ticket, record, "callback", began)
            ticket = await first_of(self._services, ticket)
            self._callback_accepted.inc()
            answer = wire.accepted(ticket.text, now_ms=_now_ms())
            return Response(answer, media_type=JSON, headers={"x-task-id": ticket.text})
        waiter = BlockingWaiter()
        with self._services.waiters.registered(ticket.key, waiter):
            await self._send(ticket, record, "blocking", began)
            del record
            async with judged(self._services, ticket, waiter) as counts:
                ended = await waiter.wait(request.receive, deadline_ms=counts.deadline_ms)
        return await self._ended(counts, ended)

    async def get(self, request: Request) -> Response:
        """Show a task as it stands."""
        owner = self._services.keys.tenant(request.headers.get("authorization"))
        reading = await find_task(self._services, request.path_params["task_id"], owner=owner)
        self._answers.labels("get", reading.mode, "200").inc()
        return Response(wire.task_object(reading), media_type=JSON, headers={"x-task-id": reading.id})

    async def cancel(self, request: Request) -> Response:
        """Cancel a task."""
        owner = self._services.keys.tenant(request.headers.get("authorization"))
        reading = await cancel_task(self._services, request.path_params["task_id"], owner=owner)
        self._answers.labels("cancel", reading.mode, "202").inc()
        headers = {"x-task-id": reading.id}
        return Response(b'"%b"' % reading.id.encode(), status_code=202, media_type=JSON, headers=headers)

    async def _send(self, ticket: Ticket, record: Record, mode: Mode, began: float) -> None:
        try:
            offset = await self._services.submitter.send(ticket, record)
        except Unconfirmed as error:
            raise self._unconfirmed(ticket) from error
        self._services.remember(ticket, offset)
        self._services.metrics.accepted_by[ticket.id.level, mode].inc()
        self._services.metrics.put_seconds.observe(time.perf_counter() - began)

    def _unconfirmed(self, ticket: Ticket) -> Unconfirmed:
        """Say what is known of a task whose write was not confirmed, and take it back if that is possible."""
        unknown = f"Kafka did not confirm task {ticket.text} in time, so it may or may not be accepted"
        if ticket.keyed:  # the same key means the same task, whatever became of this write
            return Unconfirmed(f"{unknown}; send it again with its Idempotency-Key", task_id=ticket.text)
        self._services.withdrawals.add(ticket)
        return Unconfirmed(
            f"{unknown}; if it was, it is cancelled when Kafka is back. Look with GET /v1/queue/{{task_id}} before you "
            "send it again, or use an Idempotency-Key",
            task_id=ticket.text,
        )

    async def _ended(self, ticket: Ticket, ended: Result | Ending) -> Response:
        """Answer a blocking request."""
        if ended is Ending.TIMEOUT or (ended is Ending.GONE and not ticket.keyed):
            await self._services.cancel(ticket, reason=ended.value)
        response = await self._answer(ended)
        response.headers["x-task-id"] = ticket.text
        self._answers.labels("put", "blocking", str(response.status_code)).inc()
        return response

    async def _answer(self, ended: Result | Ending) -> Response:
        match ended:
            case Ending.SHUTDOWN:
                message = "this process is shutting down; the task goes on, fetch it with GET /v1/queue/{task_id}"
                return envelope(503, message, headers={"x-should-retry": "false"})
            case Ending():  # one that went away reads no answer, so this is for those who waited in vain
                return _timed_out("the task timed out and was cancelled")
        if ended["error_code"] in wire.TIMEOUTS:
            return _timed_out(ended["error_message"] or "the task timed out")
        try:
            body = await self._services.body_of(ended)
        except (BlobMissing, BlobCorrupt) as error:
            return envelope(500, f"the answer was too large for a record and is lost: {error}")
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


def envelope(status: int, message: str, *, field: str | None = None, headers: dict[str, str] | None = None) -> Response:
    """Render an error of this dialect."""
    body = wire.failure(status, message, now_ms=_now_ms(), field=field)
    return Response(body, status_code=status, media_type=JSON, headers=headers)


def _timed_out(message: str) -> Response:
    # Clients that retry 408 by themselves would run the task once more.
    return envelope(408, message, headers={"x-should-retry": "false"})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
