"""POST completion-messages: a prompt becomes a chat completion, and its answer a message."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

from starlette.requests import Request
from starlette.responses import Response

from core.errors import Unavailable
from core.lenient_json import joined
from core.settings.models import ModelSettings, QueueSettings
from ingress.api.dify import serialization
from ingress.api.dify.errors import JSON, DifyError, problem
from ingress.api.dify.files import DifyUploads
from ingress.api.dify.prices import tokens_in, usage_object
from ingress.api.dify.prompt import prompt_of
from ingress.api.dify.request import CompletionRequest, read_ask
from ingress.api.dify.stream import ENDED, CompletionStream
from ingress.http.options import Options, read_options, renamed
from ingress.http.request import BODY_SETTING, idempotency_key, read_body
from ingress.read_model.task_lookup import result_body
from ingress.runtime import Ingress
from ingress.submission.service import WaitingRequest
from ingress.waiting.blocking import WaitOutcome
from schemas.common import Usage
from schemas.records import NO_ORIGIN, Result, Task
from schemas.validation import Invalid, check_task

DEFAULT_TIMEOUT_S = 300
INLINING = 4
"""Requests that put pictures into their bodies at once: each may hold some 60 MB until its body is in the store."""


class Completions:
    """Serves completion messages of one ingress."""

    def __init__(self, ingress: Ingress, uploads: DifyUploads) -> None:
        self._ingress = ingress
        self._settings = ingress.settings
        self._uploads = uploads
        self._inlining = asyncio.Semaphore(INLINING)

    async def create(self, request: Request) -> Response:
        """Send the prompt to the model; answer with its text, at once or as it comes."""
        caller = self._ingress.keys.caller(request, "submit")
        settings = self._settings.ingress
        options = read_options(request.headers, hold_s=settings.blocking_timeout_s)
        body = await read_body(request, limit=settings.max_body_bytes, setting=BODY_SETTING)
        most_files = self._settings.dify.max_files_per_request
        ask = read_ask(body, most_files=most_files, require_user=settings.require_user)
        name = options.queue or settings.default_queue
        queue = self._settings.queues.get(name, QueueSettings())
        prompt = prompt_of(ask.inputs, ask.query, queue.prompt)
        model = queue.model or await self._first_model(name)
        timeout_s = options.timeout_s or min(queue.timeout_s or DEFAULT_TIMEOUT_S, settings.max_timeout_s)
        task = _task(ask, queue=name, model=model, timeout_s=timeout_s, options=options, key=idempotency_key(request))
        del body  # thousands of waiting requests must not hold their bodies, too
        async with self._inlining if ask.images else nullcontext():
            images = await self._uploads.urls(ask.images, owner=caller.owner, user=ask.user)
            task["data"] = serialization.upstream_body(model, prompt, images, streaming=ask.mode == "streaming")
            del images
            submission = self._ingress.connected().submission
            prepared = await submission.prepare(_checked(task), caller=caller, request=request)
            del task
        prices, tokens = self._settings.models.get(model), tokens_in(prompt)
        if ask.mode == "streaming":
            return CompletionStream(self._ingress, submission, prepared, prices=prices, prompt_tokens=tokens)
        del ask, prompt
        holding = submission.submit_and_wait(prepared, request)
        del prepared
        return await self._ended(await holding, prices=prices, prompt_tokens=tokens)

    async def _first_model(self, queue: str) -> str:
        """Return the model of a queue that names none: the first that the upstreams list."""
        try:
            models = await self._ingress.model_catalog.models()
        except Unavailable:
            models = []
        if not models:
            message = f"no model is known for queue {queue}: set model in [queues.{queue}], or start a model server"
            raise DifyError(message, code="app_unavailable")
        return str(models[0]["id"])

    async def _ended(self, held: WaitingRequest, *, prices: ModelSettings | None, prompt_tokens: int) -> Response:
        if held.ended is WaitOutcome.TIMEOUT:
            await self._ingress.connected().submission.cancel(held.ticket, reason=held.ended.value)
        if isinstance(held.ended, WaitOutcome):
            response = problem(ENDED.get(held.ended, ENDED[WaitOutcome.TIMEOUT]))
        else:
            body = await result_body(self._ingress.blobs, held.ended)
            response = _answer(held.ended, body, serialization.Message.of(held.ticket.id), prices, prompt_tokens)
        response.headers["x-task-id"] = held.ticket.text
        self._ingress.metrics.answers.labels(CompletionStream.route, "blocking", str(response.status_code)).inc()
        return response


def _answer(
    result: Result, body: bytes | None, message: serialization.Message, prices: ModelSettings | None, prompt_tokens: int
) -> Response:
    part = serialization.read_part(body) if body is not None else None
    if result["state"] != "completed":
        reason = result["error_message"] or f"the task ended as {result['state']}"
        return problem(serialization.failed(result, serialization.error_of(body), reason))
    if part is None or part.error is not None:
        error = part.error if part is not None else None
        return problem(serialization.failed(None, error, "the upstream's answer is no chat completion"))
    text = joined(part.text)
    usage = result["usage"] or part.usage or _estimate(prompt_tokens, text)
    latency_s = (result["finished_ms"] - result["created_ms"]) / 1000
    answer = message.blocking(text, usage_object(usage, prices, latency_s=latency_s))
    return Response(answer, media_type=JSON)


def _estimate(prompt_tokens: int, answer: str) -> Usage:
    completion = tokens_in(answer)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": prompt_tokens + completion,
    }


def _task(ask: CompletionRequest, *, queue: str, model: str, timeout_s: int, options: Options, key: str | None) -> Task:
    """Build the task, without body, id, owner and time yet."""
    return {
        "queue": queue,
        "level": 0,
        "endpoint": serialization.ENDPOINT,
        "data": None,
        "id": None,
        "mode": ask.mode,
        "data_ref": None,
        "model": model,
        "owner": None,
        "callback_url": None,
        "trace_id": None,
        "idempotency_key": key,
        "created_ms": 0,
        "timeout_ms": timeout_s * 1000,
        "start_timeout_ms": options.start_timeout_s * 1000,
        "run_timeout_ms": options.run_timeout_s * 1000,
        "retention_ms": options.retention_s * 1000,
        "content_type": JSON,
        "user": ask.user,
        "callback_events": [],
        **NO_ORIGIN,
    }


def _checked(task: Task) -> Task:
    """Validate a task and return it; raises InvalidRequest."""
    try:
        check_task(task)
    except Invalid as error:
        raise renamed(error) from None
    return task
