"""Serve a call whose body was read: wait for the outcome, stream it, or accept the task and answer at once."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ingress.api.openai import serialization
from ingress.api.openai.responses import JSON, blocking_answer, overdue, task_headers
from ingress.api.openai.serialization import Call
from ingress.api.openai.stream import OpenAIStream
from ingress.api.tasks.serialization import RETRY_AFTER_S, accepted_object
from ingress.auth.keys import Caller
from ingress.http.options import read_options
from ingress.http.request import idempotency_key
from ingress.runtime import Ingress
from ingress.submission.service import PreparedTask
from ingress.waiting.blocking import WaitOutcome


class Calls:
    """Serves calls of any endpoint of this API, whatever form their body came in."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._hold_s = ingress.settings.ingress.blocking_timeout_s

    def check(self, request: Request) -> None:
        """Refuse wrong headers before a body is read; raises InvalidRequest."""
        read_options(request.headers, hold_s=self._hold_s)
        idempotency_key(request)

    async def answer(self, call: Call, request: Request, *, caller: Caller) -> Response:
        """Serve a call; raises RequestError and Unavailable.

        The caller must drop its reference to the call: thousands of waiting calls must not hold their bodies, too.
        """
        options = read_options(request.headers, hold_s=self._hold_s)
        settings = self._ingress.settings
        task = serialization.task_of(call, options, settings, idempotency_key=idempotency_key(request))
        endpoint, mode = call.endpoint, task["mode"]
        await self._ingress.model_catalog.check(call.model)
        submission = self._ingress.connected().submission
        prepared = await submission.prepare(task, caller=caller, request=request)
        created_ms = task["created_ms"]
        del call, task
        if mode == "streaming":
            # A stream that moves is not cut short, unless it was asked for: its end is the task's own time-out.
            hold_s = float(options.wait_s) or None
            return OpenAIStream(self._ingress, submission, prepared, endpoint=endpoint, hold_s=hold_s)
        answering = (
            self._accept(prepared, created_ms)
            if mode == "callback"
            else self._hold(prepared, request, options.wait_s or self._hold_s)
        )
        del prepared
        response = await answering
        self._ingress.metrics.answers.labels(endpoint, mode, str(response.status_code)).inc()
        return response

    async def _accept(self, prepared: PreparedTask, created_ms: int) -> Response:
        own = prepared.ticket.key
        connected = self._ingress.connected()
        ticket = await connected.submission.submit(prepared)
        row = connected.view.get(ticket.key) if ticket.key != own else None
        body = accepted_object(
            ticket.id,
            created_ms=row["created_ms"] if row else created_ms,
            status=row["state"] if row else "queued",
            progress=row["progress"] if row else 0,
        )
        headers = {**task_headers(ticket), "retry-after": str(RETRY_AFTER_S)}
        return Response(body, status_code=202, media_type=JSON, headers=headers)

    async def _hold(self, prepared: PreparedTask, request: Request, hold_s: float) -> Response:
        submission = self._ingress.connected().submission
        holding = submission.submit_and_wait(prepared, request, hold_s=hold_s)
        del prepared
        held = await holding
        if held.ended is WaitOutcome.TIMEOUT and overdue(held.ticket):
            # The scheduler should have ended it; if it is behind, the cancel is in the log.
            await submission.cancel(held.ticket, reason=held.ended.value)
        return await blocking_answer(self._ingress.blobs, held.ticket, held.ended)
