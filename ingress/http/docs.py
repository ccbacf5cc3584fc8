"""/docs without a network: the OpenAPI document as one plain page, rendered here, no script and no other file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from html import escape
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from core.asyncapi import document as asyncapi_document
from ingress.api.openapi_document import document

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.7rem}h2{margin-top:2.5rem;font-size:1.2rem;border-bottom:1px solid #d0d7de;padding-bottom:.3rem}
h2 b{color:#0550ae}h3{font-size:1rem;margin:1.2rem 0 .3rem}code,pre{font:13px/1.45 ui-monospace,monospace}
pre{background:#f6f8fa;padding:.8rem;overflow:auto;border-radius:6px}table{border-collapse:collapse;width:100%}
td,th{border:1px solid #d0d7de;padding:.3rem .6rem;text-align:left;vertical-align:top}summary{cursor:pointer}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}pre{background:#161b22}h2 b{color:#79c0ff}
td,th,h2{border-color:#30363d}a{color:#79c0ff}}
"""


def routes() -> list[Route]:
    """List the routes."""

    async def docs(_: Request) -> Response:
        return HTMLResponse(page())

    kept: list[bytes] = []

    async def asyncapi(request: Request) -> Response:
        """Without the broker's address: everybody may read this, and 100 KB are rendered once."""
        if not kept:
            kept.append(orjson.dumps(asyncapi_document(request.app.state.ingress.settings)))
        return Response(kept[0], media_type="application/json")

    return [Route("/docs", docs, methods=["GET"]), Route("/asyncapi.json", asyncapi, methods=["GET"])]


@cache
def page() -> str:
    """Return the page."""
    described = document()
    info = described["info"]
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>',
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style>',
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>",
        '<p>Send <code>Authorization: Bearer KEY</code>. The same as <a href="/openapi.json">openapi.json</a>.</p>',
        '<p>The topics of Kafka: <a href="/asyncapi.json">asyncapi.json</a>.</p>',
    ]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts += _operation(described, path, method, operation)
    return "".join(parts) + "</html>"


def _operation(described: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h2><b>{method.upper()}</b> <code>{escape(path)}</code> {escape(operation['summary'])}</h2>"
    if description := operation.get("description"):
        yield f"<p>{escape(description)}</p>"
    yield f"<p><small>{_needs(operation)}</small></p>"
    if parameters := operation.get("parameters"):
        rows = [(f"{p['name']} ({p['in']})", p["schema"], p.get("description", "")) for p in parameters]
        yield "<h3>Parameters</h3>" + _table(rows)
    if "requestBody" in operation:
        for media, content in operation["requestBody"]["content"].items():
            yield f"<h3>Body, {escape(media)}</h3>" + _members(described, content) + _examples(content)
    yield "<h3>Answers</h3>"
    for status, answer in operation["responses"].items():
        yield f"<details><summary><b>{status}</b> {escape(answer['description'])}</summary>"
        for media, content in answer.get("content", {}).items():
            yield f"<p><code>{escape(media)}</code></p>" + _members(described, content) + _examples(content)
        yield "</details>"


def _needs(operation: dict[str, Any]) -> str:
    scopes = [scope for needed in operation.get("security", ()) for scope in needed.get("key", ())]
    return f"Needs a key with the scope {escape(' and '.join(scopes))}." if scopes else "Open to everybody."


def _members(described: dict[str, Any], content: dict[str, Any]) -> str:
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    if not name:
        return ""
    schema = described["components"]["schemas"][name]
    required = schema.get("required", ())
    rows = [
        (f"{member}{' (required)' if member in required else ''}", detail, detail.get("description", ""))
        for member, detail in schema["properties"].items()
    ]
    return _table(rows)


def _table(rows: list[tuple[str, dict[str, Any], str]]) -> str:
    lines = (
        f"<tr><td><code>{escape(name)}</code><td>{escape(_kind(schema))}<td>{escape(text)}"
        for name, schema, text in rows
    )
    return "<table><tr><th>name<th>type<th>meaning" + "".join(lines) + "</table>"


def _kind(schema: dict[str, Any]) -> str:
    kind = " | ".join(map(str, schema["enum"])) if "enum" in schema else str(schema.get("type", "any"))
    return f"{kind}, default {schema['default']}" if "default" in schema else kind


def _examples(content: dict[str, Any]) -> str:
    named = {name: example["value"] for name, example in content.get("examples", {}).items()}
    if "example" in content:
        named[""] = content["example"]
    return "".join(
        f"{f'<p>{escape(name)}' if name else ''}<pre>{escape(_shown(value))}</pre>" for name, value in named.items()
    )


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
