"""Parameters, bodies and answers of the schema registry, as Confluent's clients know them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from core.errors import InvalidRequest
from ingress.http.routing import JSON, Responses, answer, error, with_example
from ingress.http.validation import QueryParameters
from schemas.subjects import Version, versions_of


def _flag(value: object) -> bool:
    return isinstance(value, str) and value.lower() == "true"


def _number(text: Any, info: ValidationInfo) -> Any:
    digits = text.removeprefix("-")
    if text and not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise InvalidRequest(f"{info.field_name} must be a whole number", field=info.field_name)
    return int(text) if text else 0 if info.field_name == "offset" else -1


Flag = Annotated[bool, BeforeValidator(_flag)]
Number = Annotated[int, BeforeValidator(_number)]
Deleted = Annotated[Flag, Field(description="Include deleted ones; no subject is ever deleted.")]
DeletedOnly = Annotated[Flag, Field(description="Only deleted ones: none.")]
Prefix = Annotated[str, Field(description="Only subjects whose name begins so.")]
SCHEMA = "The Avro schema as JSON text."
NO_SUBJECT, NO_VERSION, NO_SCHEMA, NO_SETTING = 40401, 40402, 40403, 40408
BAD_SCHEMA, BAD_VERSION, READ_ONLY = 42201, 42202, 42205
MAX_BODY = 262_144
COMPATIBILITY = {"compatibilityLevel": "BACKWARD"}
MODE = {"mode": "READONLY"}
SUBJECT = "headrace.tasks.online-value"
NEWEST = versions_of("task")[-1]


class Lenient(BaseModel):
    """Base of the queries: parameters that this registry does not know are ignored, as the original does."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class PageQuery(Lenient):
    """Which part of a list is wanted."""

    offset: Number = Field(0, description="How many entries to skip.")
    limit: Number = Field(-1, description="How many entries to list at most; all of them when negative.")


class SubjectQuery(PageQuery):
    """Which subjects to list."""

    prefix: Prefix = Field("", alias="subjectPrefix")
    deleted: Deleted = False
    deleted_only: DeletedOnly = Field(False, alias="deletedOnly")


class VersionsQuery(PageQuery):
    """Which versions of a subject to list."""

    deleted: Deleted = False
    deleted_only: DeletedOnly = Field(False, alias="deletedOnly")


class SchemasQuery(PageQuery):
    """Which versions of all subjects to list."""

    prefix: Prefix = Field("", alias="subjectPrefix")
    latest_only: Flag = Field(False, alias="latestOnly", description="Only the newest version of each subject.")
    deleted: Deleted = False


class FormQuery(Lenient):
    """In which form a schema is wanted."""

    format: str = Field("", description="Form of the schema; there is one form, so this is ignored.")
    deleted: Deleted = False


class IdFormQuery(Lenient):
    """In which form the schema of an id is wanted."""

    subject: str = Field("", description="Where the client found the id; an id means the same schema everywhere.")
    format: str = Field("", description="Form of the schema; there is one form, so this is ignored.")


class IdQuery(IdFormQuery):
    """What is wanted with the schema of an id."""

    fetch_max_id: Flag = Field(False, alias="fetchMaxId", description="Return the highest id, too, as maxId.")


class UseQuery(PageQuery):
    """Which uses of a schema to list."""

    subject: str = Field("", description="Only this subject.")
    deleted: Deleted = False


class ConfigQuery(Lenient):
    """Which configuration is wanted."""

    default_to_global: str = Field(
        "", alias="defaultToGlobal", description="`true`: the global configuration when the subject has none."
    )


SubjectParameters = Annotated[SubjectQuery, Depends(QueryParameters(SubjectQuery))]
VersionsParameters = Annotated[VersionsQuery, Depends(QueryParameters(VersionsQuery))]
SchemasParameters = Annotated[SchemasQuery, Depends(QueryParameters(SchemasQuery))]
FormParameters = Annotated[FormQuery, Depends(QueryParameters(FormQuery))]
IdFormParameters = Annotated[IdFormQuery, Depends(QueryParameters(IdFormQuery))]
IdParameters = Annotated[IdQuery, Depends(QueryParameters(IdQuery))]
UseParameters = Annotated[UseQuery, Depends(QueryParameters(UseQuery))]
ConfigParameters = Annotated[ConfigQuery, Depends(QueryParameters(ConfigQuery))]


class SchemaText(BaseModel):
    """A schema that a client has."""

    text: str = Field(alias="schema", description=SCHEMA)
    type: Literal["AVRO"] = Field("AVRO", alias="schemaType", description="Avro is the only type.")


class SubjectVersion(BaseModel):
    """A version of the schema of a subject."""

    subject: str
    version: int
    id: int = Field(description="The id in the first bytes of every record with this schema.")
    text: str = Field(alias="schema", description=SCHEMA)


class SchemaId(BaseModel):
    """The id of a schema."""

    id: int


class SchemaOfId(BaseModel):
    """The schema of an id."""

    text: str = Field(alias="schema", description=SCHEMA)
    highest: int | None = Field(None, alias="maxId", description="The highest id, if fetchMaxId was given.")


class SchemaUse(BaseModel):
    """A version that has a schema."""

    subject: str
    version: int


class RegistryError(BaseModel):
    """An error of the schema registry."""

    error_code: int
    message: str


class Compatibility(BaseModel):
    """How schemas may change."""

    level: Literal["BACKWARD"] = Field(alias="compatibilityLevel")


class Mode(BaseModel):
    """Whether schemas can be registered."""

    mode: Literal["READONLY"]


def version_object(subject: str, version: Version) -> dict[str, Any]:
    """Render a version."""
    return {"subject": subject, "version": version.number, "id": version.schema_id, "schema": version.text}


def shown(model: object, example: object) -> Responses:
    """Describe the answer of a route."""
    return {200: answer("As Confluent's registry answers.", model, example=example)}


def _error(code: int, description: str, message: str) -> dict[str, Any]:
    return error(description, {"error_code": code, "message": message})


EXAMPLE = version_object(SUBJECT, NEWEST)
CLOSED: Responses = {401: _error(401, "Not on loopback, and no key.", "an API key is required")}
BAD_PAGE: Responses = {400: _error(400, "An offset or limit is no number.", "offset must be a whole number")}
WITHOUT_SUBJECT: Responses = {404: _error(NO_SUBJECT, "No such subject.", f"Subject '{SUBJECT}' not found.")}
WITHOUT_VERSION: Responses = {
    **WITHOUT_SUBJECT,
    422: _error(
        BAD_VERSION,
        "The version is no number.",
        "The specified version 'x' is not a valid version id: a number from 1, or latest",
    ),
}
WITHOUT_SCHEMA: Responses = {404: _error(NO_SCHEMA, "No such schema.", "Schema 99 not found")}
BAD_TEXT: Responses = {
    **WITHOUT_SUBJECT,
    400: _error(400, "The body has no schema.", "the body must be a JSON object with the member schema, a text"),
    413: _error(413, "The body is too large.", f"the body is larger than {MAX_BODY} bytes (a fixed limit)"),
    422: _error(BAD_SCHEMA, "No valid Avro schema, or an unknown one.", "Invalid schema"),
}
TEXT_BODY = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": SchemaText.model_json_schema(), **with_example({"schema": NEWEST.text})}},
    }
}
