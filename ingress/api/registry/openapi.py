"""The registry's routes as OpenAPI."""

from __future__ import annotations

import json
from typing import Any

from ingress.api.registry import responses
from ingress.api.registry.routes import COMPATIBILITY, MAX_BODY, MODE
from schemas.subjects import versions_of

SUBJECT = "headrace.tasks.online-value"
NEWEST = versions_of("task")[-1]
OPEN = (
    "Open to everybody while the ingress listens on loopback; elsewhere basic auth with an API key of the scope read "
    "as the password, or the key as a bearer."
)


def paths() -> dict[str, Any]:
    """Describe the answers."""
    shown = responses.shown(SUBJECT, NEWEST)
    subject, version = (
        _parameter("subject", "A topic's name and -value."),
        _parameter("version", "A number, or latest."),
    )
    number = _parameter("schema_id", "The id that stands in the first bytes of a record.")
    of_version = {
        **NO_SUBJECT,
        "422": _told("The version is no number.", responses.BAD_VERSION, "The version is wrong"),
    }
    no_schema = {"404": _told("No such schema.", responses.NO_SCHEMA, "Schema 99 not found")}
    config = {"compatibilityLevel": COMPATIBILITY}
    return {
        "/subjects": {
            "get": _operation(
                "listSubjects", "List what has a schema", [PREFIX, DELETED, DELETED_ONLY, *PAGE], [SUBJECT], BAD_PAGE
            )
        },
        "/subjects/{subject}": {"post": _posting("lookUpSchema", "Find the version that a schema is", subject, shown)},
        "/subjects/{subject}/versions": {
            "get": _operation(
                "listVersions",
                "List the versions of a schema",
                [subject, DELETED, DELETED_ONLY, *PAGE],
                [1, 2],
                NO_SUBJECT | BAD_PAGE,
            ),
            "post": _posting("registerSchema", "Tell the id of a schema", subject, {"id": NEWEST.schema_id}),
        },
        "/subjects/{subject}/versions/{version}": {
            "get": _operation(
                "getVersion", "Show a version of a schema", [subject, version, FORMAT, DELETED], shown, of_version
            )
        },
        "/subjects/{subject}/versions/{version}/schema": {
            "get": _operation(
                "getVersionText",
                "Show the schema alone",
                [subject, version, FORMAT, DELETED],
                json.loads(NEWEST.text),
                of_version,
            )
        },
        "/subjects/{subject}/versions/{version}/referencedby": {
            "get": _operation("listReferences", "List what refers to it: nothing", [subject, version], [], of_version)
        },
        "/schemas": {
            "get": _operation(
                "listSchemas",
                "List every version of every schema",
                [PREFIX, _query("latestOnly", "Only the newest version of each.", "boolean"), DELETED, *PAGE],
                [shown],
                BAD_PAGE,
            )
        },
        "/schemas/types": {"get": _operation("listSchemaTypes", "List the kinds of schemas", [], ["AVRO"])},
        "/schemas/ids/{schema_id}": {
            "get": _operation(
                "getSchema",
                "Show a schema by its id",
                [number, UNDER, FORMAT, _query("fetchMaxId", "Tell the highest id, too, as maxId.", "boolean")],
                {"schema": NEWEST.text},
                no_schema,
            )
        },
        "/schemas/ids/{schema_id}/schema": {
            "get": _operation(
                "getSchemaText",
                "Show a schema alone by its id",
                [number, UNDER, FORMAT],
                json.loads(NEWEST.text),
                no_schema,
            )
        },
        "/schemas/ids/{schema_id}/subjects": {
            "get": _operation(
                "listSchemaSubjects",
                "List the subjects of a schema",
                [number, ONLY, DELETED, *PAGE],
                [SUBJECT],
                no_schema | BAD_PAGE,
            )
        },
        "/schemas/ids/{schema_id}/versions": {
            "get": _operation(
                "listSchemaVersions",
                "List what a schema stands under",
                [number, ONLY, DELETED, *PAGE],
                [{"subject": SUBJECT, "version": NEWEST.number}],
                no_schema | BAD_PAGE,
            )
        },
        "/config": {"get": _operation("getCompatibility", "Tell how schemas may change", [], config)},
        "/config/{subject}": {
            "get": _operation("getSubjectCompatibility", "Tell how one may change", [subject], config, NO_SUBJECT)
        },
        "/mode": {"get": _operation("getMode", "Tell that nothing can be registered", [], {"mode": MODE})},
        "/mode/{subject}": {"get": _operation("getSubjectMode", "Tell it of one subject", [subject], {"mode": MODE})},
    }


def schemas() -> dict[str, Any]:
    """Describe the bodies: the examples do."""
    return {}


def _operation(
    name: str, summary: str, parameters: list[dict[str, Any]], example: object, errors: dict[str, Any] | None = None
) -> dict[str, Any]:
    described = {
        "200": {"description": "As Confluent's registry has it.", "content": _content(example)},
        **(errors or {}),
    }
    described["401"] = _told("Not on loopback, and no key.", 401, "an API key is required")
    return {
        "operationId": name,
        "summary": summary,
        "description": OPEN,
        "security": [],
        "parameters": parameters,
        "responses": dict(sorted(described.items())),
    }


def _posting(name: str, summary: str, subject: dict[str, Any], example: object) -> dict[str, Any]:
    errors = {
        **NO_SUBJECT,
        "400": _told("The body holds no schema.", 400, "the body must be a JSON object with the member schema, a text"),
        "413": _told("The body is too large.", 413, f"the body is larger than {MAX_BODY} bytes"),
        "422": _told("No valid Avro schema, or one that is not there.", responses.BAD_SCHEMA, "Invalid schema"),
    }
    schema = {
        "type": "object",
        "required": ["schema"],
        "properties": {"schema": {"type": "string"}, "schemaType": {"enum": ["AVRO"], "default": "AVRO"}},
    }
    body = {"content": {"application/json": {"schema": schema, "example": {"schema": NEWEST.text}}}}
    return {**_operation(name, summary, [subject], example, errors), "requestBody": body}


def _parameter(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


def _query(name: str, description: str, kind: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": {"type": kind}}


def _content(example: object) -> dict[str, Any]:
    return {"application/json": {"example": example}}


def _told(description: str, code: int, message: str) -> dict[str, Any]:
    return {"description": description, "content": _content({"error_code": code, "message": message})}


NO_SUBJECT = {"404": _told("No such subject.", responses.NO_SUBJECT, f"Subject '{SUBJECT}' not found.")}
BAD_PAGE = {"400": _told("An offset or limit is no number.", 400, "offset must be a whole number")}
PREFIX = _query("subjectPrefix", "Of the subjects to list.", "string")
DELETED = _query("deleted", "Include what was deleted, which nothing is.", "boolean")
DELETED_ONLY = _query("deletedOnly", "Only what was deleted: nothing.", "boolean")
FORMAT = _query("format", "Form of the schema; ours has one, whichever is asked for.", "string")
UNDER = _query("subject", "Where the asker met the id; an id is the same schema everywhere.", "string")
ONLY = _query("subject", "Only this subject.", "string")
PAGE = [
    _query("offset", "How many to pass over.", "integer"),
    _query("limit", "Most to list; below zero all.", "integer"),
]
