"""The errors that every operation has in common, with examples made by the code that renders errors.

An error has the form of the dialect of its path: example and schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

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
from ingress.api.batches import routes as batches
from ingress.api.batches.models import BatchErrorObject
from ingress.api.bella import routes as bella
from ingress.api.bella.models import BellaError
from ingress.api.dialects import DIALECTS
from ingress.api.dify import errors as dify
from ingress.api.dify.models import DifyErrorObject
from ingress.api.examples import TASK_TEXT
from ingress.api.openai import responses as openai
from ingress.api.openai.models import OpenAIError
from ingress.api.registry import routes as registry
from ingress.api.registry.models import RegistryError
from ingress.auth.rate_limits import Quota
from ingress.http.errors import ApiProblem, ErrorRenderer

AT_MS = 1_769_860_800_000
QUOTA_HEADERS = [name.decode() for name, _ in Quota(60, 0, 60).headers()]
MODELS: Mapping[ErrorRenderer, type[BaseModel]] = {
    bella.problem: BellaError,
    openai.problem: OpenAIError,
    batches.problem: BatchErrorObject,
    dify.problem: DifyErrorObject,
    registry.problem: RegistryError,
}
"""Dialect → the model of its errors."""
REF = "#/components/schemas/{model}"
WITHOUT_DIALECT = ("/readyz",)


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
    "Kafka cannot be reached, or too many requests are waiting; nothing was accepted.",
    "Kafka cannot be reached now; nothing was accepted, try again in some seconds",
    ("retry-after",),
)
CODES = {
    error.http_status: error.code
    for error in (InvalidRequest, Unauthorized, Forbidden, NotFound, Gone, TooLarge, IdempotencyConflict, RateLimited)
} | {Unavailable.http_status: Unavailable.code}


def error_schemas() -> dict[str, Any]:
    """Return the schemas of the errors of all dialects, by name."""
    found: dict[str, Any] = {}
    for model in MODELS.values():
        schema = model.model_json_schema(ref_template=REF)
        found |= schema.pop("$defs", {})
        found[model.__name__] = schema
    return found


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
    if "422" in described:  # it has an Idempotency-Key, so it submits
        refusals.append(TOO_MANY)
    common = {str(one.status): _answer(path, one, scope=needed) for one in refusals}
    responses = {**common, **{status: _with_example(path, status, answer) for status, answer in described.items()}}
    return {**operation, "security": security, "responses": dict(sorted(responses.items()))}


def _with_example(path: str, status: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of an API; an error without example or schema gets those of its dialect."""
    if status < "400" or path in WITHOUT_DIALECT:
        return answer
    shown = answer.get("content", {}).get("application/json", {})
    if "example" not in shown and "examples" not in shown:
        problem = ApiProblem(int(status), CODES.get(int(status), "invalid_request"), answer["description"])
        shown = {**shown, "example": _rendered(path, problem)}
    return {**answer, "content": {"application/json": {"schema": _schema_of(path, int(status))} | shown}}


def _schema_of(path: str, status: int) -> dict[str, Any]:
    dialect = DIALECTS.of(path)
    if dialect is batches.problem and status in batches.STRINGS:
        return {"anyOf": [{"type": "string"}, {"$ref": REF.format(model=OpenAIError.__name__)}]}
    return {"$ref": REF.format(model=MODELS[dialect].__name__)}


def _rendered(path: str, problem: ApiProblem) -> dict[str, Any]:
    example: dict[str, Any] = json.loads(bytes(DIALECTS.of(path)(problem).body))
    if "timestamp" in example:
        example["timestamp"] = AT_MS
    return example


def _answer(path: str, refusal: ErrorExample, *, scope: str) -> dict[str, Any]:
    problem = ApiProblem(refusal.status, refusal.code, refusal.message.format(scope=scope))
    answer: dict[str, Any] = {
        "description": refusal.description,
        "content": {
            "application/json": {"schema": _schema_of(path, refusal.status), "example": _rendered(path, problem)}
        },
    }
    if refusal.headers:
        answer["headers"] = {name: {"schema": {"type": "string"}} for name in refusal.headers}
    return answer
