"""FastAPI routes as these APIs need them: HEAD with every GET, bodies read by dependencies, and hot routes without any.

FastAPI reads a body before it solves dependencies, so before the key is checked; here a dependency reads it
(ingress/http/validation.py), after the key, within its limit. For the document FastAPI sees the same endpoint with the
models as parameters: `described`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast, get_args, get_type_hints

import orjson
from fastapi import params
from fastapi.routing import APIRoute, APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response
from starlette.routing import Route, request_response

from ingress.http.validation import FormBody, JsonBody, QueryParameters, RawBody

JSON = "application/json"
Responses = dict[int | str, dict[str, Any]]
"""The answers of a route by status, as FastAPI expects them."""
READERS = (FormBody, JsonBody, QueryParameters, RawBody)
EXAMPLE = "x-example"
"""Member that holds an example as JSON text until the document is finished: FastAPI removes nulls from examples."""


class ApiRoute(APIRoute):
    """A route of FastAPI; `described` is what the document is made from."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["status_code"] = min((int(one) for one in options.get("responses") or ()), default=200)
        self._options = options
        super().__init__(path, endpoint, **options)
        if self.methods and "GET" in self.methods:
            self.methods.add("HEAD")

    def described(self) -> APIRoute:
        """Return the same route with its models as parameters, as FastAPI's document needs it."""
        return APIRoute(self.path, _declared(self.endpoint), **self._options)


class RawRoute(ApiRoute):
    """A route whose endpoint gets the request as it is; its dependencies are for the document alone."""

    matches = Route.matches
    handle = Route.handle

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.app = request_response(endpoint)


def api_router(tag: str, *, route_class: type[ApiRoute] = ApiRoute, responses: Responses | None = None) -> APIRouter:
    """Return a router for routes of one API; `tag` is their heading in the document."""
    return APIRouter(tags=[tag], route_class=route_class, default_response_class=Response, responses=responses)


def left_out(description: str | None = None, **bounds: Any) -> Any:
    """Declare a member of an answer that is left out when it has no value."""
    return Field(None, description=description, **bounds)


def answer(
    description: str,
    model: type[BaseModel] | Any = None,
    *,
    example: object = None,
    examples: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Describe an answer with a JSON body for the `responses` of a route; headers are name → description."""
    content = with_example(example) if examples is None else with_examples(examples)
    shown: dict[str, Any] = {"description": description, "content": {JSON: content}}
    if model is not None:
        shown["model"] = model
    if headers:
        shown["headers"] = {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}
    return shown


def error(description: str, example: object = None) -> dict[str, Any]:
    """Describe a refusal; without an example the code that renders errors makes it (ingress/api/openapi.py)."""
    return {"description": description, "content": {JSON: {} if example is None else with_example(example)}}


def with_example(example: object) -> dict[str, Any]:
    """Return a media type object with an example."""
    return {EXAMPLE: orjson.dumps(example).decode()}


def with_examples(named: Mapping[str, object]) -> dict[str, Any]:
    """Return a media type object with several examples."""
    return {"examples": {name: {EXAMPLE: orjson.dumps(value).decode()} for name, value in named.items()}}


def _declared(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Return an endpoint like another whose models are parameters as FastAPI knows them."""
    hints = get_type_hints(endpoint, include_extras=True)
    signature = inspect.signature(endpoint)
    parameters = [_parameter(one, hints[one.name]) for one in signature.parameters.values()]

    @functools.wraps(endpoint)
    def declared() -> None:
        raise NotImplementedError

    declared.__dict__.pop("__wrapped__")
    declared.__signature__ = signature.replace(parameters=parameters, return_annotation=Response)  # type: ignore[attr-defined]
    return declared


def _parameter(parameter: inspect.Parameter, hint: Any) -> inspect.Parameter:
    parameter = parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)
    for one in get_args(hint)[1:] if hasattr(hint, "__metadata__") else ():
        if isinstance(one, params.Depends) and isinstance(one.dependency, READERS):
            reader = cast("JsonBody[BaseModel]", one.dependency)
            default = parameter.empty if reader.required else None
            return parameter.replace(annotation=Annotated[reader.model, reader.declared], default=default)
    return parameter
