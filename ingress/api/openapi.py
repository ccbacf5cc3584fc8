"""The OpenAPI document: what FastAPI generates from the routers, completed with the errors that every operation has.

The examples of errors are made by the code that renders errors, in the dialect of the path.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from ingress.api import infrastructure
from ingress.api.admin import dead_letters, queues, state
from ingress.api.admin import tasks as admin_tasks
from ingress.api.batches import routes as batches
from ingress.api.bella import pull_routes as workers
from ingress.api.bella import routes as bella
from ingress.api.dify import routes as dify
from ingress.api.files import routes as files
from ingress.api.openai import routes as openai
from ingress.api.openapi_errors import completed, error_schemas
from ingress.api.registry import routes as registry
from ingress.api.tasks import deliveries, events
from ingress.api.tasks import routes as tasks
from ingress.http.dependencies import API_KEY
from ingress.http.routing import EXAMPLE, ApiRoute

TITLE = "Headrace"
DESCRIPTION = (
    "An inference task queue on Kafka: every accepted task gets exactly one outcome. The topics are described in "
    "[asyncapi.json](/asyncapi.json)."
)
TAGS = (
    {
        "name": "Queue API",
        "description": "Submit tasks for any endpoint of the model servers, and fetch them over HTTP as a worker; "
        "clients of Bella use it.",
    },
    {"name": "Tasks", "description": "Tasks of any API: their state, result, events and callbacks."},
    {
        "name": "Schema registry",
        "description": "The read side of Confluent's schema registry: with it stock tools decode every topic. Open to "
        "everyone while the ingress listens on loopback; elsewhere it needs basic auth with an API key of the scope "
        "read as the password, or the key as a bearer.",
    },
    {
        "name": "OpenAI-compatible API",
        "description": "Calls of OpenAI's API, which are queued: for existing clients below `/v1`, and below `/queue`.",
    },
    {"name": "Dify-compatible API", "description": "Completion applications of Dify, with and without `/v1`."},
    {"name": "Files and batches", "description": "OpenAI's files, and batches in SiliconFlow's dialect or OpenAI's."},
    {"name": "Administration", "description": "For keys with the scope admin: queues and tasks of all tenants."},
    {"name": "Health", "description": "Probes and metrics, open to everyone."},
)
ROUTERS: tuple[APIRouter, ...] = (
    bella.put_router,
    workers.router,
    bella.router,
    openai.calls_router,
    openai.router,
    events.router,
    tasks.router,
    deliveries.router,
    dify.completion_router,
    dify.router,
    files.router,
    batches.router,
    registry.router,
    queues.router,
    admin_tasks.router,
    dead_letters.router,
    state.router,
    infrastructure.router,
)
EXACT = 2**53
"""Larger whole numbers are not exact in FastAPI's document, whose bounds are floats."""


@cache
def document() -> dict[str, Any]:
    """Return the document."""
    found = get_openapi(
        title=TITLE, version=version("headrace"), description=DESCRIPTION, routes=[*_described()], tags=[*TAGS]
    )
    schemas: dict[str, Any] = found["components"].get("schemas", {})
    for of_fastapi in ("HTTPValidationError", "ValidationError"):
        schemas.pop(of_fastapi, None)
    errors = error_schemas()
    _simplify([*schemas.values(), *errors.values()])
    generated = {
        path: {method: _finished(one) for method, one in methods.items()} for path, methods in found["paths"].items()
    }
    found["paths"] = {
        path: {method: completed(path, method, operation) for method, operation in methods.items()}
        for path, methods in generated.items()
    }
    scheme = API_KEY.model.model_dump(mode="json", by_alias=True, exclude_none=True)
    found["components"] = {
        "securitySchemes": {API_KEY.scheme_name: scheme},
        "schemas": dict(sorted((schemas | errors).items())),
    }
    return found


def _described() -> Iterator[BaseRoute]:
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, ApiRoute) and route.include_in_schema:
                yield route.described()


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
        parameter["schema"] = _of_parameter(parameter["schema"])
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
    if isinstance(named := shown.get("examples"), dict):
        named = {name: {"value": one.get("value", one.get("example"))} for name, one in named.items()}
        if [*named] == ["example"]:  # the only one needs no name
            del shown["examples"]
            shown["example"] = named["example"]["value"]
        else:
            shown["examples"] = named
    return shown


def _of_parameter(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter without what it cannot be, null, and without what the parameter has itself."""
    _simplify(schema)
    kinds = [one for one in schema.pop("anyOf", ()) if one != {"type": "null"}]
    schema = {**schema, **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})}
    schema.pop("description", None)
    if schema.get("default") == "":
        del schema["default"]
    return schema


def _simplify(schema: Any) -> None:
    """Remove the titles that pydantic derives from names; write bounds of whole numbers as whole numbers."""
    if isinstance(schema, list):
        for one in schema:
            _simplify(one)
    elif isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        if schema.get("type") == "integer":
            _exact_bounds(schema)
        if "default" in schema and schema["default"] is None and isinstance(schema.get("type"), str):
            del schema["default"]  # left out, not null
        for name in ("properties", "$defs"):
            _simplify([*schema.get(name, {}).values()])
        for name in ("items", "anyOf", "oneOf", "allOf", "additionalProperties"):
            _simplify(schema.get(name))


def _exact_bounds(schema: dict[str, Any]) -> None:
    for bound in ("minimum", "maximum"):
        if bound in schema:
            schema[bound] = int(schema[bound])
            if abs(schema[bound]) > EXACT:
                del schema[bound]
