"""Parameters and JSON bodies as pydantic models; a wrong one is refused in plain words that name the field.

A message of pydantic describes the rule that failed ("Input should be greater than or equal to 1"); a message of these
APIs names the member and all that is required of it ("limit must be a whole number from 1 to 100").
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any, ClassVar, Generic, TypeVar

from fastapi import Body, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from starlette.requests import Request

from core.errors import InvalidRequest
from ingress.http.request import BODY_SETTING, json_object, read_body

Model = TypeVar("Model", bound=BaseModel)
SHOWN = 40
"""Characters of an unknown name that an error repeats."""
MOST_DIGITS = 5


def _digits(text: object) -> object:
    """Refuse what int() accepts besides digits: signs, blanks, underscores, digits of other scripts."""
    if isinstance(text, str) and not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
        raise ValueError
    return text


Digits = BeforeValidator(_digits)
"""For whole numbers of a query."""


class Parameters(BaseModel):
    """Base of the models of a query: unknown and repeated parameters are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: ClassVar[str] = "parameter"


class JsonObject(BaseModel):
    """Base of the models of a JSON body: unknown members are refused, and no value is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)
    kind: ClassVar[str] = "member"


class QueryParameters(Generic[Model]):
    """A dependency: the query of the request as a model."""

    required = True

    def __init__(self, model: type[Model]) -> None:
        self.model = model

    @property
    def declared(self) -> FieldInfo:
        """Return where FastAPI's document shows the model."""
        parameter: FieldInfo = Query()
        return parameter

    async def __call__(self, request: Request) -> Model:
        """Read the query; raises InvalidRequest."""
        return read_parameters(self.model, request.query_params.multi_items())


class JsonBody(Generic[Model]):
    """A dependency: the body of the request, a JSON object, as a model. No body is an empty object."""

    required = False

    def __init__(self, model: type[Model], *, limit: int, example: Mapping[str, Any]) -> None:
        """Read at most `limit` bytes; the example is for the document."""
        self.model = model
        self._limit = limit
        self._example = example

    @property
    def declared(self) -> FieldInfo:
        """Return where FastAPI's document shows the model."""
        body: FieldInfo = Body(openapi_examples={"example": {"value": dict(self._example)}})
        return body

    async def __call__(self, request: Request) -> Model:
        """Read the body; raises InvalidRequest, TooLarge and ClientDisconnect."""
        body = await read_body(request, limit=self._limit)
        return read_members(self.model, json_object(body) if body.strip() else {})


class RawBody(Generic[Model]):
    """A dependency: the body of the request as it came; the model is for the document."""

    def __init__(
        self, model: type[Model], *, limit: int | None = None, example: Mapping[str, Any], required: bool = False
    ) -> None:
        """Read at most `limit` bytes; None is the setting ingress.max_body_bytes."""
        self.model = model
        self.required = required
        self._limit = limit
        self._example = example

    @property
    def declared(self) -> FieldInfo:
        """Return where FastAPI's document shows the model."""
        body: FieldInfo = Body(openapi_examples={"example": {"value": dict(self._example)}})
        return body

    async def __call__(self, request: Request) -> bytes:
        """Read the body; raises InvalidRequest, TooLarge and ClientDisconnect."""
        if self._limit is not None:
            return await read_body(request, limit=self._limit)
        limit: int = request.app.state.ingress.settings.ingress.max_body_bytes
        return await read_body(request, limit=limit, setting=BODY_SETTING)


class FormBody(Generic[Model]):
    """A dependency that reads nothing: it declares the form that the endpoint reads itself, for the document."""

    required = True

    def __init__(self, model: type[Model]) -> None:
        self.model = model

    @property
    def declared(self) -> FieldInfo:
        """Return where FastAPI's document shows the model."""
        body: FieldInfo = Body(media_type="multipart/form-data")
        return body

    async def __call__(self) -> None:
        """Do nothing."""


def read_parameters(model: type[Model], given: Iterable[tuple[str, str]]) -> Model:
    """Validate the parameters of a query; raises InvalidRequest."""
    if model.model_config.get("extra") != "forbid":
        return read_members(model, dict(given))
    found: dict[str, str] = {}
    for name, value in given:
        _check_known(model, [name])
        if name in found:
            raise InvalidRequest(f"{name} was given twice", field=name)
        found[name] = value
    return read_members(model, found)


def read_members(model: type[Model], members: Mapping[str, Any], *, context: Any = None) -> Model:
    """Validate the members of an object; raises InvalidRequest."""
    if model.model_config.get("extra") == "forbid":
        _check_known(model, members)
    try:
        return model.model_validate(members, context=context)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0])
        if members.get(name) is None:
            raise InvalidRequest(f"{name} is missing", field=name) from None
        raise InvalidRequest(f"{name} {_requirement_at(model, first['loc'])}", field=name) from None


def requirement(schema: Mapping[str, Any], *, inside: bool = False) -> str:
    """Describe what a value must be, from its schema; `inside` is for an item of a list."""
    match schema:
        case {"enum": [*values]}:
            wanted = f"be {listed(values)}"
        case {"const": value}:
            wanted = f"be {value}"
        case {"type": "boolean"}:
            wanted = "be true or false"
        case {"type": "integer", "minimum": least, "maximum": most}:
            wanted = f"be a whole number from {least} to {most}"
        case {"type": "integer"}:
            wanted = "be a whole number"
        case {"type": "array", "items": {"maxLength": most}} if inside:
            wanted = f"hold texts of at most {most} characters"
        case {"type": "array", "minItems": least, "maxItems": most}:
            wanted = f"be a list of {least} to {most} texts"
        case {"type": "string", "minLength": least, "maxLength": most}:
            wanted = f"be a text of {least} to {most} characters"
        case _:
            wanted = f"be {schema.get('type', 'another value')}"
    return f"must {wanted}"


def listed(values: Collection[object]) -> str:
    """Write alternatives: a, b or c."""
    names = [str(value) for value in values]
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _requirement_at(model: type[BaseModel], where: tuple[int | str, ...]) -> str:
    """Describe what the value of a member must be, or an item of its list."""
    schema = _schema(model)
    member = _resolved(schema["properties"][str(where[0])], schema)
    return requirement(member, inside=any(isinstance(part, int) for part in where[1:]))


def _check_known(model: type[BaseModel], names: Iterable[str]) -> None:
    known = [field.alias or name for name, field in model.model_fields.items()]
    for name in names:
        if name not in known:
            kind = getattr(model, "kind", "member")
            raise InvalidRequest(f"there is no {kind} {name[:SHOWN]}; there are {', '.join(known)}", field=name[:SHOWN])


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _resolved(schema: Mapping[str, Any], within: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a value that is not null."""
    if "anyOf" in schema:
        [schema] = (one for one in schema["anyOf"] if one.get("type") != "null")
    if "$ref" in schema:
        found: Mapping[str, Any] = within["$defs"][schema["$ref"].rpartition("/")[2]]
        return found
    return schema
