"""Requests that Hypothesis makes from the OpenAPI document: as it says, nearly so, and not at all."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
from hypothesis import strategies as st

from ingress.api.openapi import document
from tests.support.openapi_operations import IDS, OTHERS, Operation, examples, in_dialect, is_file

HOSTILE = st.sampled_from(
    [
        "",
        " ",
        "\x00",
        "../..",
        "%00",
        "%2e%2e",
        "a\r\nx: y",
        "\u202e",
        "😀",
        "𐏿",
        "-1",
        "NaN",
        "1e999",
        "null",
        "true",
        "' OR 1=1 --",
        "{{7*7}}",
        "${x}",
        "a" * 5_000,
        "TASK-",
        "task_",
        "0" * 32,
        "Infinity",
        "{}",
        "[]",
    ]
)
TEXT = HOSTILE | st.text(max_size=20) | st.text(string.ascii_letters + string.digits + "-_.:/", max_size=40)
NUMBER = (
    st.sampled_from([0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308, 5e-324])
    | st.integers(-10, 100_000)
    | st.floats(allow_nan=False, allow_infinity=False)
)
ANY = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
BYTES = st.binary(max_size=200) | st.sampled_from(
    [b"", b"{", b"[" * 5_000, b'{"a":' * 5_000, b"\xff\xfe", b"null", b'"x"', b"{}", b"[]", b'{"a":1}garbage', b"0x"]
)
HEADER = st.text(string.printable[:95], max_size=60) | st.sampled_from(
    ["0", "-1", "1e9", "wait=0", "x" * 9_000, ";", "a,b"]
)
KIND = st.sampled_from(["image/png", "audio/wav", "text/plain", "", "application/octet-stream", 'a/b;c="d'])
FILE = st.tuples(TEXT.map(lambda name: name.replace("\x00", "")), st.binary(max_size=300), KIND)


class Sent(NamedTuple):
    """One request."""

    path: str
    made_up_path: bool
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    """As httpx takes it."""

    def request(self, client: httpx.AsyncClient | httpx.Client, method: str) -> httpx.Request:
        """Build it."""
        return client.build_request(
            method, self.path, params=self.query, headers={k: v.strip() for k, v in self.headers.items()}, **self.body
        )


WRONG = (None, True, 5, -0.5, 10**30, "", "x", "\x00", [], [1], [None], {}, {"a": 1})


def with_each_member_wrong(value: Any) -> Iterator[Any]:
    """Yield an example with one value of another kind, at every place and of every kind."""
    yield from WRONG
    if isinstance(value, dict):
        for name, inner in value.items():
            for other in with_each_member_wrong(inner):
                yield value | {name: other}
    elif isinstance(value, list) and value:
        for other in with_each_member_wrong(value[0]):
            yield [other, *value[1:]]


def as_described(operation: Operation, sent: Sent, response: httpx.Response) -> None:
    """Fail when an answer is not one of those that the document has."""
    told = f"{response.status_code} {response.text[:300]}"
    # A path that was made up may belong to another route, or to none.
    described = {*operation.described["responses"], *(("404", "405") if sent.made_up_path else ())}
    assert str(response.status_code) in described, told
    if response.status_code < 300 and response.headers.get("content-type") == "application/json":
        response.json()
    if response.status_code >= 400 and operation.path != "/readyz":
        assert response.headers["content-type"] == "application/json", told
        assert in_dialect(operation.path, response), told


@st.composite
def requests_of(draw: st.DrawFn, operation: Operation, *, task_ids: Sequence[str]) -> Sent:
    """Draw a request to an operation: most are right but for one place, else all would end at the first check."""
    described = operation.described
    wrong = draw(st.sampled_from(["nothing", "path", "query", "headers", "body", "body", "body", "body", "all"]))
    made_up = "{" in operation.path and wrong in ("path", "all")
    named = [name for name in (*IDS, *OTHERS) if f"{{{name}}}" in operation.path]
    values = {name: _segment(draw, made_up, task_ids, name) for name in named}
    parameters = described.get("parameters", ())
    query = draw(_some([one for one in parameters if one["in"] == "query"], TEXT, broken=wrong in ("query", "all")))
    headers = draw(
        _some([one for one in parameters if one["in"] == "header"], HEADER, broken=wrong in ("headers", "all"))
    )
    if wrong == "query":
        query |= draw(st.just({}) | st.dictionaries(TEXT, TEXT, max_size=1))
    body = draw(_body(described) if wrong in ("body", "all") else _sound(described))
    return Sent(operation.path.format(**values), made_up, query, headers, body)


@st.composite
def _some(draw: st.DrawFn, parameters: Sequence[Any], other: st.SearchStrategy[str], *, broken: bool) -> dict[str, str]:
    """Draw one or two of some parameters, broken or as they are described."""
    chosen = draw(st.lists(st.sampled_from(parameters), max_size=2)) if parameters else []
    return {one["name"]: draw(other if broken else _plain(one["schema"], other=None)) for one in chosen}


def _segment(draw: st.DrawFn, made_up: bool, task_ids: Sequence[str], name: str) -> str:
    if made_up:
        return quote(draw(TEXT), safe="")
    return draw(st.sampled_from(task_ids)) if name in IDS else OTHERS[name]


def _plain(
    schema: Mapping[str, Any], *, other: st.SearchStrategy[Any] | None = TEXT | NUMBER
) -> st.SearchStrategy[str]:
    """Draw a value as a query or a form holds it."""
    values = of_schema(schema, plain=other is None)
    if other is not None:
        values |= other
    return values.map(lambda value: value if isinstance(value, str) else json.dumps(value))


def _sound(described: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    content = described.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        return st.sampled_from(examples(content["application/json"])).map(lambda value: {"json": value})
    if "multipart/form-data" in content:
        return _form(_resolved(content["multipart/form-data"]["schema"]), broken=False)
    return st.just({})


def _body(described: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    content = described.get("requestBody", {}).get("content", {})
    raw = BYTES.map(lambda text: {"content": text})
    if "application/json" in content:
        media = content["application/json"]
        changed = st.one_of([_changed(value) for value in examples(media)])
        values = st.one_of(changed, changed, changed, changed, of_schema(media.get("schema", {})), ANY)
        sent = values.map(lambda value: {"content": json.dumps(value).encode()})
        return st.one_of(sent, sent, sent, raw)
    if "multipart/form-data" in content:
        schema = _resolved(content["multipart/form-data"]["schema"])
        return st.one_of(_form(schema, broken=True), _form(schema, broken=False), raw)
    return st.just({})


@st.composite
def _changed(draw: st.DrawFn, value: Any) -> Any:
    """Take an example and put something else into one place."""
    if isinstance(value, list) and value:
        return [draw(_changed(value[0])), *value[1:]]
    if not isinstance(value, dict) or not value:
        return draw(ANY)
    name = draw(st.sampled_from(sorted(value)))
    match draw(st.sampled_from(["other", "other", "other", "inside", "inside", "drop", "add"])):
        case "other":
            return value | {name: draw(ANY)}
        case "inside":
            return value | {name: draw(_changed(value[name]))}
        case "drop":
            return {key: inner for key, inner in value.items() if key != name}
        case _:
            return value | {draw(TEXT): draw(ANY)}


@st.composite
def _form(draw: st.DrawFn, schema: Mapping[str, Any], *, broken: bool) -> dict[str, Any]:
    properties, required = schema.get("properties", {}), schema.get("required", ())
    files, data = [], {}
    chosen = {*required, *draw(st.lists(st.sampled_from(sorted(properties)), max_size=3))}
    if broken and chosen:
        chosen -= {draw(st.sampled_from(sorted(chosen)))}
    for name in sorted(chosen):
        if is_file(properties[name]):
            files += [(name, one) for one in draw(st.lists(FILE, min_size=1, max_size=2 if broken else 1))]
        else:
            other = TEXT | NUMBER if broken else None
            data[name] = "smollm2" if name == "model" and not broken else draw(_plain(properties[name], other=other))
    if broken:
        data |= draw(st.dictionaries(TEXT, TEXT, max_size=1))
    return {"files": files, "data": data} if files else {"data": data}


def of_schema(schema: Mapping[str, Any], *, plain: bool = False) -> st.SearchStrategy[Any]:
    """Return values that a schema allows, as far as the document's schemas go; `plain` are those of good will."""
    schema = _resolved(schema)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return st.one_of([of_schema(one, plain=plain) for one in schema[word]])
    kind = schema.get("type")
    if isinstance(kind, list):
        return st.one_of([of_schema({**schema, "type": one}, plain=plain) for one in kind])
    if plain and kind == "string" and "pattern" not in schema:
        return st.text(string.ascii_letters + string.digits, min_size=1, max_size=12)
    return _of_kind(kind, schema)


def _of_kind(kind: str | None, schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    least, most = schema.get("minimum"), schema.get("maximum")
    made: dict[str | None, Callable[[], st.SearchStrategy[Any]]] = {
        "object": lambda: _object(schema),
        "array": lambda: st.lists(of_schema(schema.get("items", {})), max_size=3),
        "integer": lambda: st.integers(least, most),
        "number": lambda: st.floats(least, most, allow_nan=False, allow_infinity=False),
        "boolean": st.booleans,
        "null": st.none,
        "string": lambda: _text(schema),
    }
    return made.get(kind, lambda: ANY)()


def _text(schema: Mapping[str, Any]) -> st.SearchStrategy[str]:
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True)
    return st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 40), 40)) | TEXT


def _object(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    properties = schema.get("properties", {})
    if not properties:
        return st.dictionaries(st.text(max_size=8), ANY, min_size=schema.get("minProperties", 0), max_size=4)
    required = {name: of_schema(properties[name]) for name in schema.get("required", ()) if name in properties}
    optional = {name: of_schema(member) for name, member in properties.items() if name not in required}
    return st.fixed_dictionaries(required, optional=optional)


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in schema:
        return schema
    found: Mapping[str, Any] = document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found
