"""The HTTP API, read from the OpenAPI document: routes by API with parameters, bodies, responses, and the objects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from headrace.docs.markdown import table

APIS = {
    "Queue API": ("/v1/queue/",),
    "Tasks": ("/v1/tasks",),
    "OpenAI-compatible API": ("/v1/chat", "/v1/completions", "/v1/embeddings", "/v1/images", "/v1/audio", "/v1/models"),
    "Files and batches": ("/v1/files", "/v1/batches"),
    "Dify-compatible API": ("/completion-messages", "/files/upload", "/messages", "/parameters", "/info", "/meta"),
    "Schema registry": ("/subjects", "/schemas", "/config", "/mode"),
    "Administration": ("/v1/admin",),
    "Health": ("/livez", "/readyz", "/metrics"),
}
"""Heading → how the paths of that API begin; the first that fits counts."""
METHODS = ("get", "post", "put", "patch", "delete")
REF = "#/components/schemas/"


class Route(NamedTuple):
    """A route: method, path, the same under another path, its operation."""

    method: str
    path: str
    aliases: tuple[str, ...]
    operation: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Return METHOD /path."""
        return f"{self.method.upper()} {self.path}"


def routes_table() -> str:
    """List every route of every API, linked to its description."""
    parts = []
    for api, routes in _by_api().items():
        rows = ([f"[`{one.title}`](#{_anchor(one.title)})", one.operation["summary"]] for one in routes)
        parts.append(f"**{api}**\n\n{table(['route', 'what it does'], rows)}")
    return "\n".join(parts)


def routes_reference() -> str:
    """Describe every route: parameters, body, responses."""
    about = {tag["name"]: f"{tag['description']}\n\n" for tag in _document()["tags"]}
    return "\n".join(
        f"## {api}\n\n{about.get(api, '')}" + "\n".join(map(_route, routes)) for api, routes in _by_api().items()
    )


def objects_reference() -> str:
    """Describe the objects that routes take and return, member by member."""
    return "\n".join(f"### {name}\n\n{_members(schema)}" for name, schema in _schemas().items() if _properties(schema))


def task_members() -> dict[str, bool]:
    """Return the members of a task, the body of `POST /v1/queue/put` and whether each is required."""
    [content] = _document()["paths"]["/v1/queue/put"]["post"]["requestBody"]["content"].values()
    schema = _resolved(content["schema"])
    return {name: name in schema.get("required", ()) for name in schema["properties"]}


@cache
def _document() -> Mapping[str, Any]:
    from ingress.api.openapi import document  # noqa: PLC0415 - no other block needs the ingress

    return document()


def _schemas() -> Mapping[str, Any]:
    found: Mapping[str, Any] = _document()["components"]["schemas"]
    return found


def _by_api() -> dict[str, list[Route]]:
    """Sort the routes by API; a path that belongs to none is a KeyError with that path."""
    found: dict[str, list[Route]] = {api: [] for api in APIS}
    for route in _routes():
        fitting = [api for api, starts in APIS.items() if route.path.startswith(starts)]
        if not fitting:
            raise KeyError(route.path)
        found[fitting[0]].append(route)
    return found


def _routes() -> Iterator[Route]:
    paths = _document()["paths"]
    aliases: dict[str, list[str]] = {}
    for path in paths:
        aliases.setdefault(_main_path(path, paths), []).append(path)
    for path, others in aliases.items():
        for method in METHODS:
            if method in paths[path]:
                yield Route(method, path, tuple(other for other in others if other != path), paths[path][method])


def _main_path(path: str, paths: Mapping[str, Any]) -> str:
    """Return the path that one is an alias of: `/v1/x` for `/queue/x`, `/x` for Dify's `/v1/x`, else itself."""
    if path.startswith("/queue/"):
        return f"/v1/{path.removeprefix('/queue/')}"
    bare = path.removeprefix("/v1")
    return bare if bare in paths else path


def _route(route: Route) -> str:
    operation = route.operation
    parts = [f"### {route.title}", _sentence(operation["summary"])]
    if route.aliases:
        parts.append(f"Also as {', '.join(f'`{path}`' for path in route.aliases)}.")
    if operation.get("description"):
        parts.append(operation["description"].strip())
    parameters = [_resolved_parameter(one) for one in operation.get("parameters", ())]
    if parameters:
        rows = (
            [f"`{one['name']}`", one["in"], _yes(one.get("required")), _kind(one.get("schema", {})), _about(one)]
            for one in parameters
        )
        parts.append(table(["parameter", "in", "required", "type", "meaning"], rows).strip())
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"Body, `{media}`: {_kind(content.get('schema', {}))}.")
        if "$ref" not in content.get("schema", {}) and _properties(content.get("schema", {})):
            parts.append(_members(content["schema"]).strip())
    rows = ([status, _answer(answer)] for status, answer in operation.get("responses", {}).items())
    parts.append(table(["status", "meaning"], rows).strip())
    return "\n\n".join(parts) + "\n"


def _answer(answer: Mapping[str, Any]) -> str:
    kinds = dict.fromkeys(
        _kind(content["schema"])
        for content in answer.get("content", {}).values()
        if "$ref" in content.get("schema", {})
    )
    return " ".join([_sentence(answer.get("description", "")), *kinds])


def _members(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = (
        [f"`{name}`", _yes(name in required), _kind(member), _about(member)]
        for name, member in _properties(schema).items()
    )
    return table(["member", "required", "type", "meaning"], rows)


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _resolved(schema).get("properties", {})
    return found


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref", "")
    return _schemas()[reference.removeprefix(REF)] if reference.startswith(REF) else schema


def _resolved_parameter(parameter: Mapping[str, Any]) -> Mapping[str, Any]:
    name = parameter.get("$ref", "").removeprefix("#/components/parameters/")
    return _document()["components"]["parameters"][name] if name else parameter


def _kind(schema: Mapping[str, Any]) -> str:
    """Describe a schema in some words: its type, values, bounds and default."""
    default = f", default `{_plain(schema['default'])}`" if schema.get("default") is not None else ""
    return f"{_type(schema)}{_bounds(schema)}{default}"


def _type(schema: Mapping[str, Any]) -> str:  # noqa: PLR0911 - one for each form of schema
    match schema:
        case {"$ref": str() as reference}:
            name = reference.removeprefix(REF)
            return f"[{name}](#{name.lower()})" if _properties(schema) else name
        case {"const": value}:
            return f"`{_plain(value)}`"
        case {"enum": [*values]}:
            return ", ".join(f"`{_plain(value)}`" for value in values)
        case {"anyOf": [*parts]} | {"oneOf": [*parts]}:
            return " or ".join(dict.fromkeys(_kind(part) for part in parts))
        case {"allOf": [part]}:
            return _kind(part)
        case {"type": "array"}:
            return f"list of {_kind(schema.get('items', {}))}"
        case {"type": [*kinds]}:
            return " or ".join(map(str, kinds))
        case {"type": kind}:
            return str(kind)
        case _:
            return "any"


def _bounds(schema: Mapping[str, Any]) -> str:
    low = schema.get("minimum", schema.get("minLength"))
    high = schema.get("maximum", schema.get("maxLength"))
    unit = " characters" if "minLength" in schema or "maxLength" in schema else ""
    if low is not None and high is not None:
        return f", {low} to {high}{unit}"
    if low is not None:
        return f", at least {low}{unit}"
    return f", at most {high}{unit}" if high is not None else ""


def _about(schema: Mapping[str, Any]) -> str:
    return str(schema.get("description", ""))


def _plain(value: object) -> str:
    """Write a value as JSON does, a text without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def _sentence(text: str) -> str:
    return text if not text or text.endswith((".", "?", "!")) else f"{text}."


def _yes(required: object) -> str:
    return "yes" if required else "no"


def _anchor(title: str) -> str:
    return "".join(char for char in title.lower() if char.isalnum() or char in "-_ ").replace(" ", "-")
