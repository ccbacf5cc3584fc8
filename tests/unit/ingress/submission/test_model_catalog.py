"""The models of several upstreams: merged, kept, asked for again, and when one may be refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from core.errors import ModelNotFound, Unavailable
from core.settings.models import IngressSettings, ModelSettings, Settings, UpstreamSettings
from ingress.submission.model_catalog import FRESH_S, MAX_BYTES, MIN_INTERVAL_S, ModelCatalog, merged, read_list
from tests.support.waiting import eventually_async

A, B = "http://a/v1", "http://b/v1"


class World:
    """Two upstreams whose answers can be set, and a clock."""

    def __init__(self, **changes: Any) -> None:
        self.answers: dict[str, Any] = {A: ["one", "vendor/two"], B: ["vendor/two", "three"]}
        self.seen: list[httpx.Request] = []
        self.now = 1000.0
        settings = Settings(upstream=UpstreamSettings(urls=[A, B], api_key="secret"), **changes)  # type: ignore[arg-type]
        self.catalogue = ModelCatalog(settings, transport=httpx.MockTransport(self.serve), clock=lambda: self.now)

    def serve(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        found = self.answers[str(request.url).removesuffix("/models")]
        if isinstance(found, Exception):
            raise found
        if isinstance(found, httpx.Response):
            return httpx.Response(found.status_code, content=found.content)
        owner = request.url.host
        return httpx.Response(200, json={"data": [{"id": name, "created": 7, "owned_by": owner} for name in found]})

    async def later(self, seconds: float = MIN_INTERVAL_S) -> None:
        self.now += seconds
        await self.catalogue.refresh()

    async def names(self) -> list[str]:
        return [model["id"] for model in await self.catalogue.models()]


async def test_lists_are_merged_and_the_first_describes() -> None:
    world = World()
    assert await world.catalogue.models() == [
        {"id": name, "object": "model", "created": 7, "owned_by": owner, "queue": "default"}
        for name, owner in (("one", "a"), ("vendor/two", "a"), ("three", "b"))
    ]
    assert {request.headers["authorization"] for request in world.seen} == {"Bearer secret"}
    assert await world.catalogue.model("vendor/two") == (await world.catalogue.models())[1]


def test_what_a_server_leaves_out_is_filled_in_and_the_rest_kept() -> None:
    [model] = merged([[{"id": "m", "meta": {"n": 1}, "created": None}]], queue="q")
    assert model == {"id": "m", "meta": {"n": 1}, "object": "model", "created": 0, "owned_by": "upstream", "queue": "q"}


async def test_a_list_is_served_on_while_its_upstream_is_away() -> None:
    world = World()
    await world.catalogue.models()
    world.answers[A] = httpx.ConnectError("gone")
    await world.later(10 * FRESH_S)
    assert await world.names() == ["one", "vendor/two", "three"]


async def test_lists_are_asked_for_once_a_second_at_most() -> None:
    world = World()
    for _ in range(3):
        with pytest.raises(ModelNotFound):
            await world.catalogue.model("nope")
    assert len(world.seen) == 2
    await world.later()
    assert len(world.seen) == 4


async def test_nothing_known_is_said_so() -> None:
    world = World()
    world.answers = {A: httpx.ConnectError("gone"), B: httpx.Response(500)}
    for asking in (world.catalogue.models(), world.catalogue.model("one")):
        with pytest.raises(Unavailable, match="no model server has listed its models yet"):
            await asking
    await world.catalogue.check("one")


async def test_an_unknown_model_is_refused_when_every_list_is_whole_and_young() -> None:
    world = World()
    await world.catalogue.check("nope")  # nothing is known yet
    await world.catalogue.models()
    await world.catalogue.check("one")
    with pytest.raises(ModelNotFound) as caught:
        await world.catalogue.check("nope")
    assert (caught.value.http_status, caught.value.code, caught.value.field) == (404, "model_not_found", "model")
    world.now += FRESH_S
    await world.catalogue.check("nope")


async def test_a_model_that_is_new_is_found_before_it_would_be_refused() -> None:
    world = World()
    await world.catalogue.models()
    world.answers[B] = ["three", "new"]
    world.now += MIN_INTERVAL_S
    await world.catalogue.check("new")
    assert "new" in await world.names()


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("gone"),
        httpx.Response(404, content=b"{}"),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, content=b'{"data":{}}'),
        httpx.Response(200, content=b'{"data":[]}'),
        httpx.Response(200, content=b'{"data":[{"id":7}]}'),
        httpx.Response(200, content=json.dumps({"data": [{"id": "x"}], "has_more": True}).encode()),
        httpx.Response(200, content=b'{"data":[{"id":"' + b"x" * MAX_BYTES + b'"}]}'),
    ],
)
async def test_no_model_is_refused_while_one_list_is_not_known_to_be_whole(answer: object) -> None:
    world = World()
    world.answers[B] = answer
    await world.catalogue.models()
    await world.catalogue.check("nope")
    assert (await world.names())[:2] == ["one", "vendor/two"]


async def test_the_settings_can_name_models_and_take_the_check_away() -> None:
    for world in (World(models={"nope": ModelSettings()}), World(ingress=IngressSettings(check_models=False))):
        await world.catalogue.models()
        await world.catalogue.check("nope")


async def test_it_asks_by_itself_and_stops() -> None:
    world = World()
    world.catalogue.start()
    await world.catalogue.refresh()
    assert await world.names() == ["one", "vendor/two", "three"]
    await world.catalogue.close()


async def test_a_server_that_starts_late_is_asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.submission.model_catalog.MIN_INTERVAL_S", 0.01)
    world = World()
    world.answers[B] = httpx.ConnectError("starts")
    world.catalogue.start()
    await eventually_async(lambda: len(world.seen) >= 2)
    world.answers[B] = ["three"]

    def known() -> bool:
        world.now += 1
        return world.catalogue._absent("nope")

    await eventually_async(known)
    await world.catalogue.close()


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"data":7}'])
def test_what_is_no_list(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_list(body)
