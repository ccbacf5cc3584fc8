"""The registry's answers, errors included, in the form that Confluent's clients read."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from ingress.http.dialects import ApiProblem
from schemas.subjects import Version

PATHS = ("/subjects", "/schemas", "/config", "/mode")
MEDIA_TYPE = "application/json"
"""Every client of a registry takes it as well as the registry's own type, and people can read it."""
NO_SUBJECT, NO_VERSION, NO_SCHEMA, NO_SETTING = 40401, 40402, 40403, 40408
BAD_SCHEMA, BAD_VERSION, READ_ONLY = 42201, 42202, 42205


def shown(subject: str, version: Version) -> dict[str, Any]:
    """Render a version."""
    return {"subject": subject, "version": version.number, "id": version.schema_id, "schema": version.text}


def answer(body: object) -> Response:
    """Render a body."""
    return Response(orjson.dumps(body), media_type=MEDIA_TYPE)


def failure(status: int, code: int, message: str) -> Response:
    """Render an error as the registry's clients read it."""
    return Response(orjson.dumps({"error_code": code, "message": message}), status_code=status, media_type=MEDIA_TYPE)


def problem(problem: ApiProblem) -> Response:
    """Render an error that any route may end with."""
    response = failure(problem.status, problem.status, problem.message)
    response.headers.update(problem.headers)
    if problem.status == 401:
        response.headers["www-authenticate"] = 'Basic realm="headrace"'
    return response


def no_subject(subject: str) -> Response:
    """Say that there is no such subject."""
    return failure(404, NO_SUBJECT, f"Subject '{subject[:200]}' not found.")


def no_schema(schema_id: str) -> Response:
    """Say that there is no such schema."""
    return failure(404, NO_SCHEMA, f"Schema {schema_id[:40]} not found")
