"""Limits per key, as every door answers them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.settings.models import AuthSettings, Settings
from tests.support.bella import BODY, PUT, Double, answer, envelope
from tests.support.memory_ingress import ingress_in_memory
from tests.support.results import result_of
from tests.support.waiting import eventually_async

KEYS = """
[[tenants.acme.keys]]
key = "sk-two"
requests_per_minute = 2
[[tenants.acme.keys]]
key = "sk-one-held"
concurrency = 1
[[tenants.acme.keys]]
key = "sk-free"
"""
TWO, HELD, FREE = ({"authorization": f"Bearer {key}"} for key in ("sk-two", "sk-one-held", "sk-free"))


@pytest.fixture
async def ingress(tmp_path: Path) -> AsyncIterator[Double]:
    (tmp_path / "keys.toml").write_text(KEYS)
    settings = Settings(data_dir=tmp_path, auth=AuthSettings(keys_file=tmp_path / "keys.toml"))
    async with ingress_in_memory(settings) as double:
        yield double


async def test_submits_per_minute(ingress: Double) -> None:
    memory, client = ingress
    for left in ("1", "0"):
        accepted = await client.post(PUT, json=BODY, headers=TWO)
        assert accepted.status_code == 200
        assert accepted.headers["x-ratelimit-remaining-requests"] == left
        assert accepted.headers["ratelimit-policy"] == '"requests";q=2;w=60'
    refused = await client.post(PUT, json=BODY, headers=TWO)
    assert refused.status_code == 429
    assert "2 requests per minute" in envelope(refused)["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["ratelimit"].startswith('"requests";r=0;t=')
    assert sum(map(len, memory.log.values())) == 2
    assert (await client.get("/v1/queue/" + accepted.json()["data"], headers=TWO)).status_code != 429
    other = await client.post(PUT, json=BODY, headers=FREE)
    assert other.status_code == 200
    assert "x-ratelimit-limit-requests" not in other.headers


@pytest.mark.parametrize("mode", ["blocking", "streaming"])
async def test_requests_held_at_once(ingress: Double, mode: str) -> None:
    memory, client = ingress
    body = BODY | {"response_mode": mode}
    first = asyncio.create_task(client.post(PUT, json=body, headers=HELD))
    await eventually_async(lambda: memory.log)
    for other in ("blocking", "streaming"):
        refused = await client.post(PUT, json=BODY | {"response_mode": other}, headers=HELD)
        assert refused.status_code == 429
        assert "hold 1 requests at once" in envelope(refused)["message"]
        assert refused.headers["retry-after"] == "1"
    assert (await client.post(PUT, json=BODY, headers=HELD)).status_code == 200
    [task] = [
        record.key for records in memory.log.values() for record in records[:1] if b"-C-" not in (record.key or b"")
    ]
    memory.tell([result_of((task or b"").decode())])
    assert (await first).status_code == 200
    memory.answer = answer()
    assert (await client.post(PUT, json=body, headers=HELD)).status_code == 200
