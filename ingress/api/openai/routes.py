"""The routes of the OpenAI mirror, under /queue and /v1 alike: calls with a JSON body, and the models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingress.api.openai import serialization
from ingress.api.openai.calls import Calls
from ingress.api.openai.responses import JSON
from ingress.http.request import BODY_SETTING, read_body
from ingress.runtime import Ingress

PREFIXES = ("/queue", "/v1")
STREAMING = {
    "/chat/completions": True,
    "/completions": True,
    "/embeddings": False,
    "/images/generations": True,
}
"""Path of a call with a JSON body → whether it can stream."""

Handler = Callable[[Request], Awaitable[Response]]


class OpenAIRoutes:
    """The mirror of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._calls = Calls(ingress)
        self._max_body = ingress.settings.ingress.max_body_bytes

    def routes(self) -> list[Route]:
        """List the routes."""
        found = []
        for prefix in PREFIXES:
            for path, can_stream in STREAMING.items():
                found.append(Route(prefix + path, self._json(f"/v1{path}", can_stream=can_stream), methods=["POST"]))
            found.append(Route(f"{prefix}/models", self.models, methods=["GET"]))
            found.append(Route(f"{prefix}/models/{{model:path}}", self.model, methods=["GET"]))
        return found

    def _json(self, endpoint: str, *, can_stream: bool) -> Handler:
        async def serve(request: Request) -> Response:
            caller = self._ingress.keys.caller(request, "submit")
            self._calls.check(request)
            body = await read_body(request, limit=self._max_body, setting=BODY_SETTING)
            call = serialization.read_call(endpoint, body, can_stream=can_stream)
            answering = self._calls.answer(call, request, caller=caller)
            del body, call  # thousands of held calls must not hold their bodies too
            return await answering

        return serve

    async def models(self, request: Request) -> Response:
        """List the models of all upstreams."""
        self._ingress.keys.caller(request, "read")
        return _json({"object": "list", "data": await self._ingress.model_catalog.models()})

    async def model(self, request: Request) -> Response:
        """Show one model; its id may hold slashes."""
        self._ingress.keys.caller(request, "read")
        return _json(await self._ingress.model_catalog.model(request.path_params["model"]))


def _json(value: dict[str, Any]) -> Response:
    return Response(orjson.dumps(value), media_type=JSON)
