"""Routes: HEAD with GET, all methods of a path in a 405, bodies after keys, raw routes without dependencies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Security
from fastapi.openapi.utils import get_openapi
from fastapi.security import SecurityScopes
from starlette.requests import Request
from starlette.responses import Response

from core.errors import Unauthorized
from ingress.api.openai.responses import problem
from ingress.http import errors
from ingress.http.errors import Dialects
from ingress.http.routing import ApiRoute, RawRoute, answer, api_router
from ingress.http.validation import JsonBody, JsonObject, Parameters, QueryParameters, RawBody


class Settings(JsonObject):
    """A body."""

    size: int


class Query(Parameters):
    """A query."""

    limit: int = 5


async def key(request: Request, _: SecurityScopes) -> str:
    """Refuse requests without a key."""
    if "authorization" not in request.headers:
        raise Unauthorized("an API key is required")
    return request.headers["authorization"]


async def never() -> None:
    """Fail when it is solved."""
    raise AssertionError


Key = Annotated[str, Security(key, scopes=["read"])]
router = api_router("Things")
raw = api_router("Things", route_class=RawRoute)


@router.get("/things", operation_id="list", responses={200: answer("Things.", example=[None])})
async def things(_: Key, query: Annotated[Query, Depends(QueryParameters(Query))]) -> Response:
    """List things."""
    return Response(str(query.limit))


@router.post("/things", operation_id="make", responses={201: answer("A thing.")})
async def make(
    _: Key, body: Annotated[Settings, Depends(JsonBody(Settings, limit=20, example={"size": 1}))]
) -> Response:
    """Make a thing."""
    return Response(str(body.size), status_code=201)


@router.put("/things", operation_id="replace", responses={200: answer("As it came.")})
async def replace(
    _: Key, body: Annotated[bytes, Depends(RawBody(Settings, limit=20, example={"size": 1}, required=True))]
) -> Response:
    """Replace things."""
    return Response(body)


@raw.post("/raw", operation_id="raw", dependencies=[Depends(never)], responses={200: answer("As it came.")})
async def as_it_came(request: Request) -> Response:
    """Return the body."""
    return Response(await request.body())


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI(openapi_url=None)
    app.router.routes += [*router.routes, *raw.routes]
    errors.install(app, Dialects(problem, {}), choose=lambda _: None)
    transport = httpx.ASGITransport(app=app)
    headers = {"authorization": "Bearer x"}
    async with httpx.AsyncClient(transport=transport, base_url="http://things", headers=headers) as made:
        yield made


async def test_get_serves_head(client: httpx.AsyncClient) -> None:
    assert (await client.get("/things?limit=7")).text == "7"
    assert (await client.head("/things")).status_code == 200


async def test_all_methods_of_a_path_are_named(client: httpx.AsyncClient) -> None:
    refused = await client.delete("/things")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, POST, PUT")
    assert (await client.get("/raw")).headers["allow"] == "POST"


async def test_a_body_is_read_after_the_key_and_within_its_limit(client: httpx.AsyncClient) -> None:
    large = b'{"size": 1}' + b" " * 100
    assert (await client.post("/things", content=large, headers={"authorization": "Bearer x"})).status_code == 413
    del client.headers["authorization"]
    assert (await client.post("/things", content=large)).status_code == 401
    assert (await client.put("/things", content=large)).status_code == 401


async def test_bodies_are_models_or_bytes(client: httpx.AsyncClient) -> None:
    made = await client.post("/things", content=b'{"size": 3}')
    assert (made.status_code, made.text) == (201, "3")
    refused = await client.post("/things", content=b'{"size": "3"}')
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "size must be a whole number")
    assert (await client.put("/things", content=b'{"size" :1e0}')).content == b'{"size" :1e0}'


async def test_dependencies_of_a_raw_route_are_not_solved(client: httpx.AsyncClient) -> None:
    assert (await client.post("/raw", content=b"{")).content == b"{"


def test_the_document_shows_the_models() -> None:
    described = [one.described() for one in [*router.routes, *raw.routes] if isinstance(one, ApiRoute)]
    document: dict[str, Any] = get_openapi(title="t", version="1", routes=described)
    path = document["paths"]["/things"]
    assert set(path) == {"get", "post", "put"}
    assert [one["name"] for one in path["get"]["parameters"]] == ["limit"]
    assert path["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/Settings")
    assert not path["post"]["requestBody"].get("required", False)
    assert path["put"]["requestBody"]["required"]
