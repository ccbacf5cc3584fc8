"""The read side of Confluent's schema registry, at the root: with it stock tools decode every topic.

Open to everyone while the ingress listens on loopback, for most of these tools are set up without a key; elsewhere
basic auth with an API key as the password, or the key as a bearer.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from fastapi import Depends, Path
from starlette.requests import Request
from starlette.responses import Response

from core.errors import InvalidRequest, Unauthorized
from core.settings.loader import is_loopback
from ingress.api.registry import models
from ingress.api.registry.models import (
    BAD_PAGE,
    BAD_SCHEMA,
    BAD_TEXT,
    BAD_VERSION,
    CLOSED,
    MAX_BODY,
    NO_SCHEMA,
    NO_SETTING,
    NO_SUBJECT,
    NO_VERSION,
    READ_ONLY,
    TEXT_BODY,
    WITHOUT_SCHEMA,
    WITHOUT_SUBJECT,
    WITHOUT_VERSION,
    shown,
    version_object,
)
from ingress.api.registry.subjects import Subjects, chosen, holding, matching, page
from ingress.auth.keys import Caller
from ingress.http.dependencies import AppIngress, PerApp
from ingress.http.errors import ApiProblem
from ingress.http.request import read_body
from ingress.http.routing import JSON, api_router
from ingress.runtime import Ingress
from schemas.codec import registry, schema_text
from schemas.subjects import NoSchema, Version

PATHS = ("/subjects", "/schemas", "/config", "/mode")
router = api_router("Schema registry", responses=CLOSED)


def _subjects(ingress: Ingress) -> Subjects:
    settings = ingress.settings
    return Subjects(prefix=settings.kafka.topic_prefix, reply_topics=settings.direct.reply_topics)


async def reader(request: Request, ingress: AppIngress) -> Caller | None:
    """Return the caller; None while the registry is open. Raises Unauthorized and Forbidden."""
    if is_loopback(ingress.settings.ingress.host):
        return None
    return ingress.keys.holder(key_of(request), "read")


Reader = Annotated[Caller | None, Depends(reader)]
SubjectsOf = Annotated[Subjects, Depends(PerApp(_subjects))]
SubjectName = Annotated[str, Path(description="The name of a topic and -value.")]
VersionName = Annotated[str, Path(description="A number, or latest.")]
SchemaNumber = Annotated[str, Path(description="The id in the first bytes of a record.")]


def problem(problem: ApiProblem) -> Response:
    """Render an error that any route may end with."""
    response = _refused(problem.status, problem.status, problem.message)
    response.headers.update(problem.headers)
    if problem.status == 401:
        response.headers["www-authenticate"] = 'Basic realm="headrace"'
    return response


@router.get(
    "/subjects",
    operation_id="listSubjects",
    summary="List the subjects",
    responses=shown(list[str], [models.SUBJECT]) | BAD_PAGE,
)
async def list_subjects(
    caller: Reader,
    query: models.SubjectParameters,
    ingress: AppIngress,
    subjects: SubjectsOf,
) -> Response:
    """List the subjects."""
    found = [] if query.deleted_only else _visible(ingress, subjects, caller, prefix=query.prefix)
    return _page(found, query)


@router.post(
    "/subjects/{subject}",
    operation_id="lookUpSchema",
    summary="Find the version of a schema",
    responses=shown(models.SubjectVersion, models.EXAMPLE) | BAD_TEXT,
    openapi_extra=TEXT_BODY,
)
async def look_up_schema(_: Reader, subject: SubjectName, subjects: SubjectsOf, request: Request) -> Response:
    """Find the version that has the text of a schema."""
    found = await _matching(request, subject, subjects)
    if found is None:
        return _refused(404, NO_SCHEMA, "Schema not found")
    return found if isinstance(found, Response) else _json(version_object(subject, found))


@router.get(
    "/subjects/{subject}/versions",
    operation_id="listVersions",
    summary="List the versions of a subject",
    responses=shown(list[int], [1, 2]) | WITHOUT_SUBJECT | BAD_PAGE,
)
async def list_versions(
    _: Reader,
    subject: SubjectName,
    query: models.VersionsParameters,
    subjects: SubjectsOf,
) -> Response:
    """List the numbers of a subject's versions."""
    found = subjects.versions(subject)
    if not found:
        return _no_subject(subject)
    return _page([] if query.deleted_only else [one.number for one in found], query)


@router.post(
    "/subjects/{subject}/versions",
    operation_id="registerSchema",
    summary="Return the id of a schema",
    responses=shown(models.SchemaId, {"id": models.NEWEST.schema_id}) | BAD_TEXT,
    openapi_extra=TEXT_BODY,
)
async def register_schema(_: Reader, subject: SubjectName, subjects: SubjectsOf, request: Request) -> Response:
    """Return the id of a schema that exists; nothing is added. Many producers ask in this way first."""
    found = await _matching(request, subject, subjects)
    if found is None:
        return _refused(422, READ_ONLY, "The schemas come with Headrace; nothing can be registered here")
    return found if isinstance(found, Response) else _json({"id": found.schema_id})


@router.get(
    "/subjects/{subject}/versions/{version}",
    operation_id="getVersion",
    summary="Show a version of a subject",
    responses=shown(models.SubjectVersion, models.EXAMPLE) | WITHOUT_VERSION,
)
async def get_version(
    _: Reader,
    subject: SubjectName,
    version: VersionName,
    __: models.FormParameters,
    subjects: SubjectsOf,
) -> Response:
    """Show one version."""
    found = _version(subjects, subject, version)
    return found if isinstance(found, Response) else _json(version_object(subject, found))


@router.get(
    "/subjects/{subject}/versions/{version}/schema",
    operation_id="getVersionText",
    summary="Show the schema of a version alone",
    responses=shown(None, json.loads(models.NEWEST.text)) | WITHOUT_VERSION,
)
async def get_version_text(
    _: Reader,
    subject: SubjectName,
    version: VersionName,
    __: models.FormParameters,
    subjects: SubjectsOf,
) -> Response:
    """Show the schema of one version alone."""
    found = _version(subjects, subject, version)
    return found if isinstance(found, Response) else Response(found.text, media_type=JSON)


@router.get(
    "/subjects/{subject}/versions/{version}/referencedby",
    operation_id="listReferences",
    summary="List the schemas that refer to a version: none",
    responses=shown(list[int], []) | WITHOUT_VERSION,
)
async def list_references(_: Reader, subject: SubjectName, version: VersionName, subjects: SubjectsOf) -> Response:
    """List the schemas that refer to a version: no schema refers to another."""
    found = _version(subjects, subject, version)
    return found if isinstance(found, Response) else _json([])


@router.get(
    "/schemas",
    operation_id="listSchemas",
    summary="List every version of every subject",
    responses=shown(list[models.SubjectVersion], [models.EXAMPLE]) | BAD_PAGE,
)
async def list_schemas(
    caller: Reader,
    query: models.SchemasParameters,
    ingress: AppIngress,
    subjects: SubjectsOf,
) -> Response:
    """List every version of every subject."""
    found = [
        version_object(subject, one)
        for subject in _visible(ingress, subjects, caller, prefix=query.prefix)
        for one in subjects.versions(subject)[-1 if query.latest_only else 0 :]
    ]
    return _page(found, query)


@router.get(
    "/schemas/types",
    operation_id="listSchemaTypes",
    summary="List the types of schemas",
    responses=shown(list[str], ["AVRO"]),
)
async def list_schema_types(_: Reader) -> Response:
    """List the types of schemas."""
    return _json(["AVRO"])


@router.get(
    "/schemas/ids/{schema_id}",
    operation_id="getSchema",
    summary="Show the schema of an id",
    responses=shown(models.SchemaOfId, {"schema": models.NEWEST.text}) | WITHOUT_SCHEMA,
)
async def get_schema(
    _: Reader,
    schema_id: SchemaNumber,
    query: models.IdParameters,
) -> Response:
    """Show the schema of an id, which is in the first bytes of each record."""
    number = _number(schema_id)
    if number is None:
        return _no_schema(schema_id)
    highest = {"maxId": max(registry())} if query.fetch_max_id else {}
    return _json({"schema": schema_text(number), **highest})


@router.get(
    "/schemas/ids/{schema_id}/schema",
    operation_id="getSchemaText",
    summary="Show the schema of an id alone",
    responses=shown(None, json.loads(models.NEWEST.text)) | WITHOUT_SCHEMA,
)
async def get_schema_text(
    _: Reader,
    schema_id: SchemaNumber,
    __: models.IdFormParameters,
) -> Response:
    """Show the text of a schema alone."""
    number = _number(schema_id)
    if number is None:
        return _no_schema(schema_id)
    return Response(schema_text(number), media_type=JSON)


@router.get(
    "/schemas/ids/{schema_id}/subjects",
    operation_id="listSchemaSubjects",
    summary="List the subjects that use a schema",
    responses=shown(list[str], [models.SUBJECT]) | WITHOUT_SCHEMA | BAD_PAGE,
)
async def list_schema_subjects(
    caller: Reader,
    schema_id: SchemaNumber,
    query: models.UseParameters,
    ingress: AppIngress,
    subjects: SubjectsOf,
) -> Response:
    """List the subjects that use a schema."""
    number = _number(schema_id)
    if number is None:
        return _no_schema(schema_id)
    return _page([one["subject"] for one in _uses(ingress, subjects, caller, number, query.subject)], query)


@router.get(
    "/schemas/ids/{schema_id}/versions",
    operation_id="listSchemaVersions",
    summary="List the versions that use a schema",
    responses=shown(list[models.SchemaUse], [{"subject": models.SUBJECT, "version": models.NEWEST.number}])
    | WITHOUT_SCHEMA
    | BAD_PAGE,
)
async def list_schema_versions(
    caller: Reader,
    schema_id: SchemaNumber,
    query: models.UseParameters,
    ingress: AppIngress,
    subjects: SubjectsOf,
) -> Response:
    """List the subjects and versions that use a schema."""
    number = _number(schema_id)
    if number is None:
        return _no_schema(schema_id)
    return _page(_uses(ingress, subjects, caller, number, query.subject), query)


@router.get(
    "/config",
    operation_id="getCompatibility",
    summary="Show how schemas may change",
    responses=shown(models.Compatibility, models.COMPATIBILITY),
)
async def get_compatibility(_: Reader) -> Response:
    """Show how schemas may change."""
    return _json(models.COMPATIBILITY)


@router.get(
    "/config/{subject}",
    operation_id="getSubjectCompatibility",
    summary="Show how the schemas of a subject may change",
    responses=shown(models.Compatibility, models.COMPATIBILITY) | WITHOUT_SUBJECT,
)
async def get_subject_compatibility(
    _: Reader,
    subject: SubjectName,
    query: models.ConfigParameters,
    subjects: SubjectsOf,
) -> Response:
    """Show how the schemas of a subject may change."""
    if subjects.versions(subject) or query.default_to_global == "true":
        return _json(models.COMPATIBILITY)
    message = f"Subject '{subject[:200]}' does not have subject-level compatibility configured"
    return _refused(404, NO_SETTING, message)


@router.get(
    "/mode",
    operation_id="getMode",
    summary="Show that nothing can be registered",
    responses=shown(models.Mode, models.MODE),
)
async def get_mode(_: Reader) -> Response:
    """Show that nothing can be registered."""
    return _json(models.MODE)


@router.get(
    "/mode/{subject}",
    operation_id="getSubjectMode",
    summary="Show that nothing can be registered for a subject",
    responses=shown(models.Mode, models.MODE),
)
async def get_subject_mode(_: Reader, subject: SubjectName) -> Response:  # noqa: ARG001 - of any subject
    """Show the mode of a subject: the global one, as the registry answers while the subject has none."""
    return _json(models.MODE)


def key_of(request: Request) -> str:
    """Return the key of a request: the password of basic auth, or a bearer; raises Unauthorized."""
    scheme, _, given = request.headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and given.strip():
        return given.strip()
    if scheme.lower() == "basic":
        try:
            password = base64.b64decode(given.strip(), validate=True).decode("latin-1").partition(":")[2]
        except (binascii.Error, ValueError):
            password = ""
        if password:
            return password
    raise Unauthorized("an API key is required: send it as the password of basic auth")


def _visible(ingress: Ingress, subjects: Subjects, caller: Caller | None, *, prefix: str = "") -> list[str]:
    """List the subjects that a caller may see: not those of the queues of other tenants."""
    connection = ingress.connection
    queues = [
        queue["name"]
        for queue in (() if connection is None else connection.queues.all())
        if caller is None or "admin" in caller.scopes or queue["owner"] in (None, caller.owner)
    ]
    return [one for one in subjects.all(queues) if one.startswith(prefix)]


def _uses(ingress: Ingress, subjects: Subjects, caller: Caller | None, number: int, only: str) -> list[dict[str, Any]]:
    names = [one for one in _visible(ingress, subjects, caller) if not only or one == only]
    return holding(number, subjects, names)


def _version(subjects: Subjects, subject: str, version: str) -> Version | Response:
    versions = subjects.versions(subject)
    if not versions:
        return _no_subject(subject)
    try:
        found = chosen(versions, version)
    except ValueError:
        message = f"The specified version '{version[:40]}' is not a valid version id: a number from 1, or latest"
        return _refused(422, BAD_VERSION, message)
    return found if found is not None else _refused(404, NO_VERSION, f"Version {version} not found.")


async def _matching(request: Request, subject: str, subjects: Subjects) -> Version | Response | None:
    body = await read_body(request, limit=MAX_BODY)
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError:
        members = None
    if not isinstance(members, dict) or not isinstance(members.get("schema"), str):
        raise InvalidRequest("the body must be a JSON object with the member schema, a text", field="schema")
    versions = subjects.versions(subject)
    if not versions:
        return _no_subject(subject)
    if members.get("schemaType", "AVRO") != "AVRO":
        return None
    try:
        return matching(versions, members["schema"])
    except NoSchema as error:
        return _refused(422, BAD_SCHEMA, f"Invalid schema: {error}")


def _number(text: str) -> int | None:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    return number if number in registry() else None


def _page(items: Sequence[object], query: models.PageQuery) -> Response:
    return _json(page(items, query.offset, query.limit))


def _json(body: object) -> Response:
    """Render a body; every client of a registry accepts plain JSON as well as the registry's own media type."""
    return Response(orjson.dumps(body), media_type=JSON)


def _refused(status: int, code: int, message: str) -> Response:
    """Render an error as the registry's clients read it."""
    return Response(orjson.dumps({"error_code": code, "message": message}), status_code=status, media_type=JSON)


def _no_subject(subject: str) -> Response:
    return _refused(404, NO_SUBJECT, f"Subject '{subject[:200]}' not found.")


def _no_schema(schema_id: str) -> Response:
    return _refused(404, NO_SCHEMA, f"Schema {schema_id[:40]} not found")
