"""The completion-messages dialect: its routes, each with and without /v1, and the neighbours that its clients call."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.errors import InvalidRequest, NotFound
from core.settings.models import QueueSettings
from ingress.api.dify import app_info
from ingress.api.dify.completion import Completions
from ingress.api.dify.errors import JSON
from ingress.api.dify.files import DifyUploads, file_object
from ingress.api.dify.request import read_user
from ingress.http.options import read_options
from ingress.http.request import BODY_SETTING, json_object, read_body
from ingress.runtime import Ingress
from schemas import ids
from schemas.records import TERMINAL

SUCCESS = b'{"result":"success"}'
RATINGS = ("like", "dislike", None)
PREFIXES = ("", "/v1")
Handler = Callable[[Request], Awaitable[Response]]


class DifyRoutes:
    """Completion messages, files and their neighbours of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._settings = ingress.settings
        self._uploads = DifyUploads(ingress.settings, ingress.blobs)
        self._completions = Completions(ingress, self._uploads)

    def routes(self) -> list[Route]:
        """List the routes."""
        found: list[tuple[str, Handler, str]] = [
            ("/completion-messages", self._completions.create, "POST"),
            ("/completion-messages/{task_id}/stop", self.stop, "POST"),
            ("/files/upload", self.upload, "POST"),
            ("/messages/{message_id}/feedbacks", self.feedback, "POST"),
            ("/parameters", self.parameters, "GET"),
            ("/info", self.info, "GET"),
            ("/meta", self.meta, "GET"),
        ]
        return [Route(prefix + path, handler, methods=[m]) for path, handler, m in found for prefix in PREFIXES]

    async def stop(self, request: Request) -> Response:
        """Stop a stream of the same end user; anything else is left alone, and the answer is the same."""
        caller = self._ingress.keys.caller(request, "submit")
        members = json_object(
            await read_body(request, limit=self._settings.ingress.max_body_bytes, setting=BODY_SETTING)
        )
        user = read_user(members.get("user"), require=self._settings.ingress.require_user)
        try:
            reading = await self._ingress.connected().task_lookup.find_state(
                request.path_params["task_id"], owner=caller.owner
            )
        except NotFound:
            return Response(SUCCESS, media_type=JSON)
        if reading.user == user and reading.mode == "streaming" and reading.state not in TERMINAL:
            task_id = ids.parse(reading.id)
            await self._ingress.connected().submitter.cancel(task_id, owner=caller.owner, reason="stopped by its user")
        return Response(SUCCESS, media_type=JSON)

    async def upload(self, request: Request) -> Response:
        """Keep a file for later requests of the same end user."""
        caller = self._ingress.keys.caller(request, "submit")
        self._ingress.limits.submit(caller, request.scope)
        upload = await self._uploads.keep(request, owner=caller.owner)
        self._ingress.metrics.answers.labels("files/upload", "blocking", "201").inc()
        return Response(orjson.dumps(file_object(upload)), status_code=201, media_type=JSON)

    async def feedback(self, request: Request) -> Response:
        """Keep what an end user thinks of an answer; the last word counts."""
        caller = self._ingress.keys.caller(request, "submit")
        self._ingress.limits.submit(caller, request.scope)
        members = json_object(
            await read_body(request, limit=self._settings.ingress.max_body_bytes, setting=BODY_SETTING)
        )
        user = read_user(members.get("user"), require=self._settings.ingress.require_user)
        rating, content = members.get("rating"), members.get("content")
        if rating not in RATINGS:
            raise InvalidRequest("rating must be like, dislike or null", field="rating")
        if content is not None and not isinstance(content, str):
            raise InvalidRequest("content must be a string", field="content")
        reading = await self._ingress.connected().task_lookup.find_state(
            request.path_params["message_id"], owner=caller.owner
        )
        if reading.user != user:
            raise NotFound("there is no such message of this user")
        said = {
            "task_id": reading.id,
            "user": user,
            "rating": rating,
            "content": content,
            "at_ms": time.time_ns() // 1_000_000,
        }
        await self._ingress.blobs.put(orjson.dumps(said), name=f"feedbacks/{reading.id}.json", media_type=JSON)
        return Response(SUCCESS, media_type=JSON)

    async def parameters(self, request: Request) -> Response:
        """Tell what the application of a queue asks for."""
        queue = self._settings.queues.get(self._queue(request), QueueSettings())
        return Response(orjson.dumps(app_info.parameters(queue, self._settings.dify)), media_type=JSON)

    async def info(self, request: Request) -> Response:
        """Name the application of a queue."""
        return Response(orjson.dumps(app_info.info(self._queue(request))), media_type=JSON)

    async def meta(self, request: Request) -> Response:
        """List the tools of the application: none."""
        self._queue(request)
        return Response(orjson.dumps(app_info.meta()), media_type=JSON)

    def _queue(self, request: Request) -> str:
        """Return the queue whose application is asked for."""
        self._ingress.keys.caller(request, "read")
        options = read_options(request.headers, hold_s=self._settings.ingress.blocking_timeout_s)
        return options.queue or self._settings.ingress.default_queue
