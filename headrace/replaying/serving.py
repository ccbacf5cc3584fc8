"""Serve a shadow queue from an upstream that the dispatchers do not know: a worker that pulls over HTTP.

The tasks go the way of all tasks that workers pull: leased, given to the next worker when this one is silent, judged by
the scheduler. So a comparison finds their outcomes where it finds all others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import orjson

from core.errors import ConfigError, Unavailable

LEASE_S = 900
"""Longest call; a task whose worker is silent for longer is handed out again."""
IDLE_S = 0.5
DRAINED_S = 5.0
"""With --drain: nothing was left to take for so long."""
TRIES = 5
MAX_WAIT_S = 30.0
RETRIABLE = frozenset((429, 502, 503, 504))


class Place(NamedTuple):
    """Who is asked for tasks, and who answers them."""

    url: str
    api_key: str
    queue: str
    upstream: str
    upstream_key: str | None


class Worker:
    """Takes tasks of one queue and brings what an upstream answers."""

    def __init__(self, place: Place, *, concurrency: int, on_done: Callable[[int], None]) -> None:
        self._place = place
        self._concurrency = concurrency
        self._on_done = on_done
        self._running: set[asyncio.Task[None]] = set()
        self.done = 0

    async def run(self, *, drain: bool) -> None:
        """Work until cancelled, or with `drain` until nothing is left; raises ConfigError and Unavailable."""
        timeout = httpx.Timeout(LEASE_S, connect=10)
        limits = httpx.Limits(max_connections=self._concurrency + 4)
        try:
            async with (
                httpx.AsyncClient(base_url=_base(self._place.url), headers=_bearer(self._place.api_key),
                                  timeout=60) as door,
                httpx.AsyncClient(headers=_bearer(self._place.upstream_key), timeout=timeout, limits=limits) as model,
            ):  # fmt: skip
                await self._work(door, model, drain=drain)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise ConfigError(f"no URL that can be called: {error}") from None
        finally:
            for task in self._running:
                task.cancel()

    async def _work(self, door: httpx.AsyncClient, model: httpx.AsyncClient, *, drain: bool) -> None:
        last = time.monotonic()
        while not drain or self._running or time.monotonic() - last < DRAINED_S:
            free = self._concurrency - len(self._running)
            taken = await self._take(door, free) if free > 0 else []
            for one in taken:
                self._running.add(asyncio.create_task(self._serve(door, model, one), name=f"serve-{one['task_id']}"))
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

    async def _take(self, door: httpx.AsyncClient, size: int) -> list[dict[str, Any]]:
        lanes = [f"{self._place.queue}:{level}" for level in (0, 1)]
        found = await _told(door, "/v1/queue/take", {"queues": lanes, "size": size, "process_timeout": LEASE_S})
        return [one for tasks in found.values() for one in tasks]

    async def _serve(self, door: httpx.AsyncClient, model: httpx.AsyncClient, task: dict[str, Any]) -> None:
        status, body = await self._call(model, task)
        outcome = {"status_code": status, "body": body, "attempt": task["attempt"], "request_id": task["task_id"]}
        await _told(door, f"/v1/queue/{task['task_id']}/complete", outcome)
        self.done += 1
        self._on_done(self.done)

    async def _call(self, model: httpx.AsyncClient, task: dict[str, Any]) -> tuple[int, Any]:
        """Return an answer that can be brought: JSON, or a text."""
        asked = task["data"]
        if not isinstance(asked, dict):
            return 400, _error("the request is no JSON object, and only those are sent to another upstream")
        # Nobody reads along; a comparison sees no difference between a stream and the answer in one piece.
        body = orjson.dumps({name: asked[name] for name in asked if name not in ("stream", "stream_options")})
        endpoint = task["endpoint"].removeprefix("/v1") if task["endpoint"].startswith("/v1/") else task["endpoint"]
        headers = {"content-type": "application/json", "x-task-id": task["task_id"]}
        status, said, wait_s = 502, _error("the upstream did not answer"), 0.5
        for _ in range(TRIES):
            try:
                answer = await model.post(self._place.upstream.rstrip("/") + endpoint, content=body, headers=headers)
            except httpx.TransportError as error:
                status, said = 502, _error(f"the upstream did not answer: {str(error) or type(error).__name__}")
            else:
                status, said = (answer.status_code if answer.status_code >= 200 else 502), _content(answer)
                if status not in RETRIABLE:
                    break
                wait_s = _asked_wait_s(answer, wait_s)
            await asyncio.sleep(min(wait_s, MAX_WAIT_S))
            wait_s *= 2
        return status, said


async def _told(door: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Any:
    """Post to the ingress, again while it is away; raises ConfigError for what it refuses."""
    why, wait_s = "", 0.25
    for _ in range(TRIES + 3):
        try:
            answer = await door.post(path, content=orjson.dumps(body), headers={"content-type": "application/json"})
        except httpx.TransportError as error:
            why = str(error) or type(error).__name__
        else:
            if answer.is_success:
                return orjson.loads(answer.content)
            why = f"{answer.status_code} {answer.text[:300]}"
            if answer.status_code not in RETRIABLE:
                raise ConfigError(f"the ingress at {door.base_url} refuses {path}: {why}")
        await asyncio.sleep(wait_s)
        wait_s *= 2
    raise Unavailable(f"the ingress at {door.base_url} does not answer: {why}")


def _content(answer: httpx.Response) -> Any:
    try:
        return orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return answer.text


def _asked_wait_s(answer: httpx.Response, otherwise: float) -> float:
    try:
        return max(0.0, float(answer.headers.get("retry-after", otherwise)))
    except ValueError:
        return otherwise


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "upstream_error"}}


def _bearer(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def _base(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1")
