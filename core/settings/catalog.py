"""Every setting with its environment variable, described for the reference page, for --help and for error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, SecretStr

from core.settings.models import Settings

PREFIX = "HEADRACE_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One setting; `allowed` completes the sentence "it must be …". A member of a table has no variable's name."""

    dotted: str
    name: str
    type: str
    default: str
    description: str
    allowed: str
    secret: bool


def variables() -> list[Variable]:
    """Describe every setting, in the order of their declaration."""
    return list(by_dotted().values())


def documented() -> list[Variable]:
    """Describe every setting, and after each table what an entry of it may hold, as TABLE.NAME.MEMBER."""
    return [row for variable in variables() for row in (variable, *members(variable.dotted))]


@cache
def by_dotted() -> Mapping[str, Variable]:
    """Return dotted name → setting."""
    return {variable.dotted: variable for variable in _walk(Settings, "")}


@cache
def by_name() -> Mapping[str, Variable]:
    """Return HEADRACE_ name → setting."""
    return {variable.name: variable for variable in by_dotted().values()}


def sections() -> list[str]:
    """List the names of the sections."""
    return [name for name, field in Settings.model_fields.items() if _is_section(field.annotation)]


def plain(value: object) -> str:
    """Write a value as its environment variable takes it; secrets are revealed."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case SecretStr():
            return value.get_secret_value()
        case list() | tuple():
            return ",".join(plain(item) for item in value)
        case dict():
            return json.dumps(value) if value else ""
        case _:
            return str(value)


def members(dotted: str) -> Iterator[Variable]:
    """Describe what an entry of a table may hold; nothing for any other setting."""
    field = Settings.model_fields.get(dotted)
    for entry in get_args(field.annotation) if field is not None else ():
        if _is_section(entry):
            yield from (replace(member, name="") for member in _walk(entry, f"{dotted}.NAME."))


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _walk(model: type[BaseModel], section: str) -> Iterator[Variable]:
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _walk(annotation, f"{name}.")
            continue
        dotted = section + name
        schema = _not_null(properties[name])
        secret = "SecretStr" in str(annotation)
        default = field.get_default(call_default_factory=True)
        yield Variable(
            dotted=dotted,
            name=PREFIX + dotted.replace(".", "_").upper(),
            type=_kind(schema),
            default="***" if secret and default else plain(default),
            description=field.description or "",
            allowed=_allowed(schema),
            secret=secret,
        )


def _not_null(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an optional setting is when it is set."""
    return next((part for part in schema.get("anyOf", ()) if part["type"] != "null"), schema)


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "choice"
    if schema["type"] == "object":
        return "table"
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'])}"
    if schema["type"] == "string":
        return {"password": "secret", "path": "path"}.get(schema.get("format", ""), "text")
    return str(schema["type"])


def _allowed(schema: Mapping[str, Any]) -> str:
    kind = _kind(schema)
    if kind == "choice":
        return "one of " + ", ".join(map(str, schema["enum"]))
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
    if "pattern" in schema:
        return f"text that matches {schema['pattern']}"
    if kind.startswith("list"):
        numeric = kind in ("list of number", "list of integer")
        return ("numbers" if numeric else "texts") + ", separated by commas"
    return {"boolean": "true or false", "text": "text", "table": "a table (JSON in the environment)"}.get(
        kind, f"a {kind}"
    )


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}" if isinstance(high, float) else f" from {low} to {high}"
    parts = []
    if low is not None:
        parts.append(f"of at least {low:g}" if isinstance(low, float) else f"of at least {low}")
    if "exclusiveMinimum" in schema:
        parts.append(f"above {schema['exclusiveMinimum']:g}")
    if high is not None:
        parts.append(f"of at most {high}")
    return " " + " and ".join(parts) if parts else ""
