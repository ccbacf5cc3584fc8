"""Answers of the models routes."""

from __future__ import annotations

import httpx
import pytest

from ingress.submission.model_catalog import ModelCatalog
from tests.support.bella import Double, answer
from tests.support.openai import CHAT, error

LISTED = b'{"object":"list","data":[{"id":"vendor/m","object":"model","created":7,"owned_by":"me","x":[1]}]}'
SHOWN = b'{"id":"vendor/m","object":"model","created":7,"owned_by":"me","x":[1],"queue":"default"}'


def catalogue(ingress: Double, body: bytes | None = LISTED) -> None:
    def serve(_: httpx.Request) -> httpx.Response:
        return httpx.Response(503) if body is None else httpx.Response(200, content=body)

    parts = ingress[0].ingress
    parts.model_catalog = ModelCatalog(parts.settings, transport=httpx.MockTransport(serve))


@pytest.mark.parametrize("prefix", ["/queue", "/v1"])
async def test_models(ingress: Double, prefix: str) -> None:
    catalogue(ingress)
    response = await ingress[1].get(f"{prefix}/models")
    assert (response.status_code, response.content) == (200, b'{"object":"list","data":[' + SHOWN + b"]}")
    assert response.headers["content-type"] == "application/json"
    for name in ("vendor/m", "vendor%2Fm"):
        assert (await ingress[1].get(f"{prefix}/models/{name}")).content == SHOWN


async def test_an_unknown_model(ingress: Double) -> None:
    catalogue(ingress)
    for name in ("nope", "vendor", "vendor/m/"):
        found = error(await ingress[1].get(f"/queue/models/{name}"), 404)
        assert (found["code"], found["param"], found["type"]) == ("model_not_found", "model", "invalid_request_error")
    for body in ({"model": "nope"}, {"model": "nope", "stream": True}, {"model": "nope", "async": True}):
        response = await ingress[1].post(CHAT, json=body)
        assert error(response, 404)["code"] == "model_not_found"
        assert "`nope`" in response.text
    assert ingress[0].log == {}
    ingress[0].answer = answer()
    assert (await ingress[1].post(CHAT, json={"model": "vendor/m"})).status_code == 200


async def test_models_that_nobody_has_listed(ingress: Double) -> None:
    catalogue(ingress, None)
    for path in ("/v1/models", "/v1/models/m"):
        response = await ingress[1].get(path)
        assert error(response, 503)["code"] == "unavailable"
        assert response.headers["retry-after"] == "2"


async def test_models_need_a_key(ingress: Double) -> None:
    for path in ("/v1/models", "/queue/models/m"):
        response = await ingress[1].get(path, headers={"authorization": ""})
        assert error(response, 401)["code"] == "invalid_api_key"
