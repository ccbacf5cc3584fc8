"""A pull worker that serves a shadow queue with an upstream unknown to the dispatchers.

Its tasks are like those of all pull workers: leased, reassigned when the worker is lost, and completed through the
scheduler. So a comparison finds their results in the same topic.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

import httpx
import orjson

from core import lenient_json
from core.clock import epoch_ms
from core.embedding import described
from core.errors import ConfigError, Unavailable
from core.retry_after import retry_after_s
from core.upstream_errors import reported

LEASE_S = 900
"""Maximum duration of a call, seconds; then the task is assigned again."""
IDLE_S = 0.5
DRAINED_S = 5.0
"""With --drain: exit after so many seconds without tasks."""
TRIES = 5
MAX_WAIT_S = 30.0
RETRIABLE = frozenset((429, 502, 503, 504))


class WorkerPlace(NamedTuple):
    """The ingress to pull from, and the upstream."""

    url: str
    api_key: str
    queue: str
    upstream: str
    upstream_key: str | None


class ShadowWorker:
    """Pulls tasks of one queue and completes them with the responses of an upstream."""

    def __init__(self, place: WorkerPlace, *, concurrency: int, on_done: Callable[[int], None]) -> None:
        self._place = place
        self._concurrency = concurrency
        self._on_done = on_done
        self._running: set[asyncio.Task[None]] = set()
        self.done = 0

    async def run(self, *, drain: bool) -> None:
        """Run until cancelled, or with `drain` until the queue is empty; raises ConfigError and Unavailable."""
        timeout = httpx.Timeout(LEASE_S, connect=10)
        limits = httpx.Limits(max_connections=self._concurrency + 4)
        try:
            async with (
                httpx.AsyncClient(
                    base_url=_base(self._place.url), headers=_bearer(self._place.api_key), timeout=60
                ) as ingress,
                httpx.AsyncClient(headers=_bearer(self._place.upstream_key), timeout=timeout, limits=limits) as model,
            ):
                await self._work(ingress, model, drain=drain)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise ConfigError(f"not a valid URL: {error}") from None
        finally:
            for task in self._running:
                task.cancel()

    async def _work(self, ingress: httpx.AsyncClient, model: httpx.AsyncClient, *, drain: bool) -> None:
        last = time.monotonic()
        while not drain or self._running or time.monotonic() - last < DRAINED_S:
            free = self._concurrency - len(self._running)
            taken = await self._take(ingress, free) if free > 0 else []
            for one in taken:
                self._running.add(asyncio.create_task(self._serve(ingress, model, one), name=f"serve-{one['task_id']}"))
            if taken:
                last = time.monotonic()
                continue
            if self._running:
                await asyncio.wait(self._running, timeout=IDLE_S, return_when=asyncio.FIRST_COMPLETED)
                last = time.monotonic()
            else:
                await asyncio.sleep(IDLE_S)
            for ended in [task for task in self._running if task.done()]:
                self._running.discard(ended)
                ended.result()

    async def _take(self, ingress: httpx.AsyncClient, size: int) -> list[dict[str, Any]]:
        queues = [f"{self._place.queue}:{level}" for level in (0, 1)]
        found = await _post(ingress, "/v1/queue/take", {"queues": queues, "size": size, "process_timeout": LEASE_S})
        return [one for tasks in found.values() for one in tasks]

    async def _serve(self, ingress: httpx.AsyncClient, model: httpx.AsyncClient, task: dict[str, Any]) -> None:
        outcome = await self._call(model, task) | {"attempt": task["attempt"], "request_id": task["task_id"]}
        await _post(ingress, f"/v1/queue/{task['task_id']}/complete", outcome)
        self.done += 1
        self._on_done(self.done)

    async def _call(self, model: httpx.AsyncClient, task: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a call: status, body, and the encoding of a binary body."""
        asked = task["data"]
        if not isinstance(asked, dict):
            return _error(400, "the request is not a JSON object; only those are sent to another upstream")
        # No client reads the stream, and the comparison treats a stream like a complete response.
        # orjson would round long numbers of the request.
        body = json.dumps({name: asked[name] for name in asked if name not in ("stream", "stream_options")}).encode()
        endpoint = task["endpoint"].removeprefix("/v1") if task["endpoint"].startswith("/v1/") else task["endpoint"]
        headers = {"content-type": "application/json", "x-task-id": task["task_id"]}
        outcome, wait_s = _error(502, "the upstream did not answer"), 0.5
        for _ in range(TRIES):
            try:
                answer = await model.post(self._place.upstream.rstrip("/") + endpoint, content=body, headers=headers)
            except httpx.TransportError as error:
                outcome = _error(502, f"the upstream did not answer: {str(error) or type(error).__name__}")
            else:
                outcome = outcome_of(answer.status_code, answer.content, answer.headers.get("content-type", ""))
                if outcome["status_code"] not in RETRIABLE:
                    break
                asked_s = retry_after_s(answer.headers.get("retry-after"), now_ms=epoch_ms())
                wait_s = wait_s if asked_s is None else asked_s
            await asyncio.sleep(min(wait_s, MAX_WAIT_S))
            wait_s *= 2
        return outcome


async def _post(ingress: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Any:
    """Post to the ingress, with retries while it is unavailable; raises ConfigError if it rejects the request."""
    why, wait_s = "", 0.25
    for _ in range(TRIES + 3):
        try:
            answer = await ingress.post(path, content=orjson.dumps(body), headers={"content-type": "application/json"})
        except httpx.TransportError as error:
            why = str(error) or type(error).__name__
        else:
            if answer.is_success:
                return json.loads(answer.content)
            why = f"{answer.status_code} {answer.text[:300]}"
            if answer.status_code not in RETRIABLE:
                raise ConfigError(f"the ingress at {ingress.base_url} refuses {path}: {why}")
        await asyncio.sleep(wait_s)
        wait_s *= 2
    raise Unavailable(f"the ingress at {ingress.base_url} does not answer: {why}")


def outcome_of(status: int, body: bytes, content_type: str) -> dict[str, Any]:
    """Return status and body to complete a task with; an error with status 200 gets its real status."""
    if status < HTTPStatus.MULTIPLE_CHOICES:
        if not body.strip():
            return _error(502, "the upstream sent a response without content")
        error = reported(lenient_json.document(body))
        status = status if error is None else error.status
    shown = described(body, content_type, name="body", types="result") if body else {"body": ""}
    return {"status_code": status if status >= HTTPStatus.OK else HTTPStatus.BAD_GATEWAY, **shown}


def _error(status: int, message: str) -> dict[str, Any]:
    return {"status_code": status, "body": {"error": {"message": message, "type": "upstream_error"}}}


def _bearer(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def _base(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1")
