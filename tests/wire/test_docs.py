"""The OpenAPI document and its page: true to the code, and without a network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
from starlette.routing import Route

from ingress.api.bella.serialization import MODES, QueueLimits, parse_put, state
from ingress.api.openapi import document
from ingress.read_model.task_snapshot import TaskSnapshot
from schemas.records import STATES
from tests.support.memory_ingress import Memory

SETTINGS: dict[str, Any] = {}


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (str(target) for name, target in value.items() if name == "$ref")
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


async def test_every_route_is_described_and_nothing_else(ingress: tuple[Memory, httpx.AsyncClient]) -> None:
    memory, client = ingress
    served = (await client.get("/openapi.json")).json()
    assert served == json.loads(json.dumps(document()))
    routes = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in memory.app.routes
        if isinstance(route, Route) and route.path not in ("/openapi.json", "/asyncapi.json", "/docs")
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert routes == {(path, method) for path, methods in served["paths"].items() for method in methods}


def test_references_lead_somewhere() -> None:
    for target in references(document()):
        where: Any = document()
        for name in target.removeprefix("#/").split("/"):
            where = where[name]
        assert where["type"] == "object"


def test_the_examples_of_put_are_accepted() -> None:
    content = document()["paths"]["/v1/queue/put"]["post"]["requestBody"]["content"]["application/json"]
    modes = {
        name: parse_put(json.dumps(example["value"]).encode(), limits=QueueLimits(600))["mode"]
        for name, example in content["examples"].items()
    }
    assert modes == {mode: mode for mode in MODES}


def test_every_state_is_listed() -> None:
    listed = set(document()["components"]["schemas"]["BellaTask"]["properties"]["status"]["enum"])
    common = {
        "id": "T",
        "queue": "q",
        "level": 0,
        "endpoint": "/x",
        "mode": "callback",
        "owner": None,
        "callback_url": None,
        "trace_id": None,
        "created_ms": 0,
        "deadline_ms": 0,
    }
    reached = {
        state(TaskSnapshot(**common, state=each, error_code=code)) for each in STATES for code in (None, "timeout", "x")
    }
    assert reached == listed


async def test_the_page_needs_no_other_host(ingress: tuple[Memory, httpx.AsyncClient]) -> None:
    response = await ingress[1].get("/docs", headers={"authorization": ""})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert re.findall(r"@import|https?://", response.text) == []
    files = re.findall(r"(?:src|href)=\"(/[^\"]+)\"", response.text)
    assert len(files) == 3
    for file in files:
        served = await ingress[1].get(file, headers={"authorization": ""})
        assert (served.status_code, len(served.content) > 1_000) == (200, True), file
    for words in ("'/openapi.json'", '"validatorUrl": null', '"tryItOutEnabled": true'):
        assert words in response.text


async def test_the_page_asks_for_a_key(ingress: tuple[Memory, httpx.AsyncClient]) -> None:
    described = (await ingress[1].get("/openapi.json", headers={"authorization": ""})).json()
    assert described["components"]["securitySchemes"]["key"]["type"] == "http"
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert "scopes" in described["components"]["securitySchemes"]["key"]["description"]


async def test_the_topics_are_described_without_the_broker(ingress: tuple[Memory, httpx.AsyncClient]) -> None:
    for _ in range(2):
        response = await ingress[1].get("/asyncapi.json", headers={"authorization": ""})
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        served = response.json()
        assert served["channels"]["results.online"]["address"] == "headrace.results.online"
        assert "servers" not in served
