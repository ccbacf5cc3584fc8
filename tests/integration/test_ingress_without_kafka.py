"""The ingress while Kafka is away: never a false 200, an answer within seconds, and back by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from compose.local.broker import EmbeddedBroker
from core.errors import ConfigError
from core.settings.models import Settings
from ingress.main import serve
from tests.support.bella import BODY, PUT
from tests.support.freezing import freeze
from tests.support.ingress_backend import ingress_backend, ingress_running
from tests.support.ports import free_port
from tests.support.roles import settings_for
from tests.support.waiting import eventually_async, until

WITHIN_S = 120


def settings_on(bootstrap: str, folder: Path) -> Settings:
    return settings_for(bootstrap, folder, "lost.", ingress__port=free_port(), kafka__request_timeout_s=2)[0]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path / "kafka", heap_mb=256)
    await asyncio.to_thread(broker.start)
    try:
        await asyncio.to_thread(broker.wait_ready)
        yield broker
    finally:
        if broker.pid is not None and broker.is_running():
            os.kill(broker.pid, signal.SIGCONT)
        await asyncio.to_thread(broker.stop)


async def refused(client: httpx.AsyncClient, *, within_s: float, **members: object) -> None:
    began = time.monotonic()
    response = await client.post(PUT, json=BODY | members)
    assert time.monotonic() - began < within_s
    assert response.status_code == 503
    assert response.json()["code"] == 503
    assert int(response.headers["retry-after"]) >= 1


async def accepted_again(client: httpx.AsyncClient) -> str:
    async def put() -> httpx.Response:
        response = await client.post(PUT, json=BODY)
        assert response.status_code in (200, 503)
        return response

    response = await until(put, lambda response: response.status_code == 200, within_s=WITHIN_S, poll_s=0.1)
    return str(response.json()["data"])


async def test_a_broker_that_hangs_and_one_that_dies(broker: EmbeddedBroker, tmp_path: Path) -> None:
    settings = settings_on(broker.bootstrap, tmp_path / "data")
    async with ingress_backend(settings) as behind, ingress_running(settings) as client:
        accepted = {await accepted_again(client)}
        assert broker.pid is not None
        freeze(broker.pid)
        modes = ("callback", "blocking", "streaming")
        await asyncio.gather(*(refused(client, within_s=60, response_mode=mode) for mode in modes))
        assert (await client.get("/livez")).status_code == 200
        os.kill(broker.pid, signal.SIGCONT)
        accepted.add(await accepted_again(client))
        await asyncio.to_thread(broker.kill)
        for _ in range(2):
            await refused(client, within_s=60)
        await asyncio.to_thread(broker.start)
        await asyncio.to_thread(broker.wait_ready)
        accepted.add(await accepted_again(client))
        await eventually_async(lambda: behind.tasks.keys() >= accepted, within_s=WITHIN_S, what="what was accepted")


async def test_a_start_before_kafka(tmp_path: Path) -> None:
    settings = settings_on(f"127.0.0.1:{free_port()}", tmp_path)
    async with ingress_running(settings, reached=False) as client:
        await refused(client, within_s=60)
        assert (await client.get("/livez")).status_code == 200
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "has not been reached" in ready.json()["missing"][0]
        unknown = await client.get("/v1/queue/TASK-1-0-C-260101000000-0000-000001")
        assert unknown.status_code == 503


async def test_a_port_in_use(tmp_path: Path) -> None:
    settings = settings_on(f"127.0.0.1:{free_port()}", tmp_path)
    async with ingress_running(settings, reached=False):
        with pytest.raises(ConfigError, match=f"port {settings.ingress.port} cannot be opened"):
            await serve(settings, asyncio.Event())
