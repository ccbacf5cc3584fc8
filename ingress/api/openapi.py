"""The OpenAPI document: what FastAPI generates from the routers, completed with the errors that every operation has.

The examples of errors are made by the code that renders errors, in the dialect of the path.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from core.errors import (
    Forbidden,
    Gone,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from ingress.api import infrastructure
from ingress.api.admin import openapi as admin
from ingress.api.batches import openapi as batches
from ingress.api.bella import openapi as bella
from ingress.api.dialects import DIALECTS
from ingress.api.dify import openapi as dify
from ingress.api.files import openapi as files
from ingress.api.openai import media_openapi as media
from ingress.api.openai import openapi as openai
from ingress.api.openapi_parts import TASK_TEXT
from ingress.api.registry import routes as registry
from ingress.api.tasks import deliveries_openapi as deliveries
from ingress.api.tasks import events_openapi as events
from ingress.api.tasks import openapi as tasks
from ingress.auth.rate_limits import Quota
from ingress.http.dependencies import API_KEY
from ingress.http.dialects import ApiProblem
from ingress.http.routing import EXAMPLE, ApiRoute

TITLE = "Headrace"
DESCRIPTION = "An inference task queue on Kafka: every accepted task gets exactly one outcome."
TAGS = (
    {
        "name": "Schema registry",
        "description": "The read side of Confluent's schema registry: with it stock tools decode every topic. Open to "
        "everyone while the ingress listens on loopback; elsewhere it needs basic auth with an API key of the scope "
        "read as the password, or the key as a bearer.",
    },
    {"name": "Health", "description": "Probes and metrics, open to everyone."},
)
ROUTERS: tuple[APIRouter, ...] = (registry.router, infrastructure.router)
BY_HAND = (bella, openai, media, tasks, deliveries, events, dify, files, batches, admin)
AT_MS = 1_769_860_800_000
QUOTA_HEADERS = [name.decode() for name, _ in Quota(60, 0, 60).headers()]


class ErrorExample(NamedTuple):
    """An error that any route of a kind may answer with."""

    status: int
    code: str
    description: str
    message: str
    headers: tuple[str, ...] = ()


UNAUTHORIZED = ErrorExample(
    401,
    "unauthorized",
    "The key is missing, unknown, disabled or expired.",
    "the API key is not known",
    ("www-authenticate",),
)
FORBIDDEN = ErrorExample(
    403, "forbidden", "The key lacks the scope.", "this needs a key with the scope {scope}; yours has none of it"
)
TOO_MANY = ErrorExample(
    429,
    "too_many_requests",
    "The key's rate limit or its limit of requests at once is exceeded, or the queue is full.",
    "this key may submit 60 requests per minute; nothing was accepted, try again in 1 s",
    ("retry-after", *QUOTA_HEADERS),
)
INVALID = ErrorExample(400, "invalid_request", "The body is wrong.", "the body is empty; it must be a JSON object")
TOO_LARGE = ErrorExample(
    413, "too_large", "The body is larger than ingress.max_body_bytes.", "the body is larger than 16777216 bytes"
)
MISSING = ErrorExample(
    404, "not_found", "No such task, or it belongs to another tenant.", f"there is no task {TASK_TEXT}"
)
UNAVAILABLE = ErrorExample(
    503,
    "unavailable",
    "Kafka cannot be reached, or too many requests are held; nothing was accepted.",
    "Kafka cannot be reached now; nothing was accepted, try again in some seconds",
    ("retry-after",),
)
CODES = {
    error.http_status: error.code
    for error in (InvalidRequest, Unauthorized, Forbidden, NotFound, Gone, TooLarge, IdempotencyConflict, RateLimited)
} | {Unavailable.http_status: Unavailable.code}


@cache
def document() -> dict[str, Any]:
    """Return the document."""
    found = get_openapi(
        title=TITLE, version=version("headrace"), description=DESCRIPTION, routes=[*_described()], tags=[*TAGS]
    )
    schemas: dict[str, Any] = found["components"].get("schemas", {})
    for of_fastapi in ("HTTPValidationError", "ValidationError"):
        schemas.pop(of_fastapi, None)
    for schema in schemas.values():
        _untitled(schema)
    generated = {
        path: {method: _finished(one) for method, one in methods.items()} for path, methods in found["paths"].items()
    }
    by_hand = {path: methods for api in BY_HAND for path, methods in api.paths().items()}
    found["paths"] = {
        path: {method: completed(path, method, operation) for method, operation in methods.items()}
        for path, methods in (by_hand | generated).items()
    }
    scheme = API_KEY.model.model_dump(mode="json", by_alias=True, exclude_none=True)
    found["components"] = {
        "securitySchemes": {API_KEY.scheme_name: scheme},
        "schemas": {name: schema for api in BY_HAND for name, schema in api.schemas().items()} | schemas,
    }
    return found


def _described() -> Iterator[BaseRoute]:
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, ApiRoute) and route.include_in_schema:
                yield route.described


def _finished(operation: dict[str, Any]) -> dict[str, Any]:
    """Return an operation of FastAPI with its examples, without FastAPI's own 422."""
    operation = _with_examples(operation)
    operation.setdefault("security", [])
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    if operation.get("description") in (operation["summary"], f"{operation['summary']}."):
        del operation["description"]
    for parameter in operation.get("parameters", ()):
        _untitled(parameter["schema"])
        parameter["schema"].pop("description", None)  # which the parameter has
        if parameter["schema"].get("default") == "":
            del parameter["schema"]["default"]
    return operation


def _with_examples(value: Any) -> Any:
    """Return a part of the document whose examples are values; FastAPI got them as JSON text."""
    if isinstance(value, list):
        return [_with_examples(one) for one in value]
    if not isinstance(value, dict):
        return value
    shown = {name: _with_examples(one) for name, one in value.items() if name != EXAMPLE}
    if EXAMPLE in value:
        shown["example"] = json.loads(value[EXAMPLE])
    if [*shown.get("examples", ())] == ["example"]:  # the only one needs no name
        shown["example"] = shown.pop("examples")["example"]["value"]
    return shown


def _untitled(schema: Any) -> None:
    """Take out the titles that pydantic makes of names."""
    if isinstance(schema, list):
        for one in schema:
            _untitled(one)
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("title"), str):
        del schema["title"]
    for name, value in schema.items():
        if name in ("properties", "$defs"):
            for one in value.values():
                _untitled(one)
        elif name in ("items", "anyOf", "oneOf", "allOf", "additionalProperties"):
            _untitled(value)


def completed(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    """Return an operation with its scope and with the errors that its API has not described."""
    if operation.get("security") == []:
        responses = {status: _with_example(path, status, one) for status, one in operation["responses"].items()}
        return {**operation, "responses": dict(sorted(responses.items()))}
    security = operation.get("security", [{"key": ["read" if method == "get" else "submit"]}])
    [needed] = security[0]["key"]
    described = operation["responses"]
    refusals = [UNAUTHORIZED, FORBIDDEN, UNAVAILABLE]
    if "requestBody" in operation:
        refusals += [INVALID, TOO_LARGE]
    if "{task_id}" in path and not path.endswith("/stop"):  # which answers the same for a task that does not exist
        refusals.append(MISSING)
    if "422" in described:  # it takes an Idempotency-Key, so it submits
        refusals.append(TOO_MANY)
    common = {str(one.status): _answer(path, one, scope=needed) for one in refusals}
    responses = {**common, **{status: _with_example(path, status, answer) for status, answer in described.items()}}
    return {**operation, "security": security, "responses": dict(sorted(responses.items()))}


def _with_example(path: str, status: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of an API; an error without an example gets one."""
    shown = answer.get("content", {}).get("application/json", {})
    if status < "400" or "example" in shown or "examples" in shown:
        return answer
    problem = ApiProblem(int(status), CODES.get(int(status), "invalid_request"), answer["description"])
    return {**answer, "content": {"application/json": {**shown, "example": _rendered(path, problem)}}}


def _rendered(path: str, problem: ApiProblem) -> dict[str, Any]:
    example: dict[str, Any] = json.loads(bytes(DIALECTS.of(path)(problem).body))
    if "timestamp" in example:
        example["timestamp"] = AT_MS
    return example


def _answer(path: str, refusal: ErrorExample, *, scope: str) -> dict[str, Any]:
    problem = ApiProblem(refusal.status, refusal.code, refusal.message.format(scope=scope))
    answer: dict[str, Any] = {
        "description": refusal.description,
        "content": {"application/json": {"example": _rendered(path, problem)}},
    }
    if refusal.headers:
        answer["headers"] = {name: {"schema": {"type": "string"}} for name in refusal.headers}
    return answer
