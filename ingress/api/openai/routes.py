"""The OpenAI-compatible API, below /queue and /v1: calls with a JSON body, calls with a form, and the models.

Calls are hot routes: their endpoints get the request as it is, and their declarations are for the document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from ingress.api.openai import models, serialization
from ingress.api.openai.calls import Calls
from ingress.api.openai.media import FORMS, FormCalls
from ingress.http.dependencies import SUBMITS, AppIngress, PerApp, ReadCaller
from ingress.http.request import BODY_SETTING, read_body
from ingress.http.routing import JSON, RawRoute, answer, api_router
from ingress.runtime import Ingress

PREFIXES = {"/queue": "Queued", "/v1": ""}
"""Prefix of the paths → suffix of the operation ids."""
TAG = "OpenAI-compatible API"
JSON_DESCRIPTION = (
    "The call is queued and the request waits for its outcome: status, body and content type are the model server's "
    "own, errors included. `stream: true` streams where the API does. `async: true`, removed before the body is passed "
    "on, is answered with 202 at once. A client that disconnects cancels its call, unless it sent an Idempotency-Key."
)
FORM_DESCRIPTION = (
    "A form, which is stored while it arrives; its fields are passed on unchanged, except for `async` and `stream`. "
    "The request waits as for any other call: status, body and content type are the model server's own, so "
    "`response_format` decides between JSON, text and subtitles. All files together may have ingress.max_upload_bytes."
)
Endpoint = Callable[[Request], Awaitable[Response]]
calls_router = api_router(TAG, route_class=RawRoute)
router = api_router(TAG)


class JsonCalls:
    """Serves calls with a JSON body for one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._keys = ingress.keys
        self._calls = Calls(ingress)
        self._max_body = ingress.settings.ingress.max_body_bytes

    async def serve(self, request: Request, endpoint: str, *, can_stream: bool) -> Response:
        """Serve a call of an endpoint of the model server; raises RequestError and Unavailable."""
        caller = self._keys.caller(request, "submit")
        self._calls.check(request)
        body = await read_body(request, limit=self._max_body, setting=BODY_SETTING)
        call = serialization.read_call(endpoint, body, can_stream=can_stream)
        answering = self._calls.answer(call, request, caller=caller)
        del body, call  # thousands of waiting calls must not hold their bodies too
        return await answering


JSON_CALLS, FORM_CALLS = PerApp(JsonCalls), PerApp(FormCalls)


def _json_endpoint(call: models.JsonCall) -> Endpoint:
    endpoint, can_stream = f"/v1{call.path}", call.stream is not None

    async def serve(request: Request) -> Response:
        return await JSON_CALLS.of(request).serve(request, endpoint, can_stream=can_stream)

    return serve


def _form_endpoint(call: models.FormCall) -> Endpoint:
    endpoint, form = f"/v1{call.path}", FORMS[call.path]

    async def serve(request: Request) -> Response:
        return await FORM_CALLS.of(request).serve(request, endpoint, form)

    return serve


async def list_models(_: ReadCaller, ingress: AppIngress) -> Response:
    """The models of all model servers; of a model that several have, the first one's description."""
    return _json({"object": "list", "data": await ingress.model_catalog.models()})


async def show_model(_: ReadCaller, model: models.ModelPath, ingress: AppIngress) -> Response:
    """Show a model."""
    return _json(await ingress.model_catalog.model(model))


def _json(value: dict[str, Any]) -> Response:
    return Response(orjson.dumps(value), media_type=JSON)


for _prefix, _suffix in PREFIXES.items():
    for _json_call in models.JSON_CALLS:
        calls_router.add_api_route(
            _prefix + _json_call.path,
            _json_endpoint(_json_call),
            methods=["POST"],
            operation_id=_json_call.operation_id + _suffix,
            summary=f"{_json_call.summary}, queued",
            description=JSON_DESCRIPTION,
            dependencies=[SUBMITS, Depends(_json_call.declaration())],
            responses=models.call_responses(_json_call.content),
        )
    for _form_call in models.FORM_CALLS:
        calls_router.add_api_route(
            _prefix + _form_call.path,
            _form_endpoint(_form_call),
            methods=["POST"],
            operation_id=_form_call.operation_id + _suffix,
            summary=f"{_form_call.summary}, queued",
            description=FORM_DESCRIPTION,
            dependencies=[SUBMITS, Depends(_form_call.declaration())],
            responses={**models.call_responses(_form_call.content), 415: models.NOT_A_FORM},
        )
    router.add_api_route(
        f"{_prefix}/models",
        list_models,
        operation_id=f"models{_suffix}",
        summary="List the models",
        responses={200: answer("The models.", models.ModelList, example={"object": "list", "data": [models.MODEL]})},
    )
    router.add_api_route(
        f"{_prefix}/models/{{model:path}}",
        show_model,
        operation_id=f"model{_suffix}",
        summary="Show a model",
        responses={200: answer("The model.", models.ModelObject, example=models.MODEL), 404: models.NO_MODEL},
    )
